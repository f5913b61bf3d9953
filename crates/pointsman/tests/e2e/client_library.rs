//! An independent client, the `redis` crate, sees the same through the proxy as directly.
use crate::harness::{DEADLINE, Pair, eventually};
use pointsman::sandbox::deployment::Options;
use redis::{Client, Commands, Connection, ConnectionInfo, IntoConnectionInfo, RedisResult, Script, Value};
use std::fmt::Debug;
use std::net::SocketAddr;

/// Where a closure finds the deployment: as `default`, or as somebody else.
struct Place(SocketAddr);

impl Place {
    fn open(&self, change: impl Fn(ConnectionInfo) -> ConnectionInfo) -> RedisResult<Connection> {
        let info = format!("redis://{}", self.0).into_connection_info()?;
        let connection = Client::open(change(info))?.get_connection_with_timeout(DEADLINE)?;
        connection.set_read_timeout(Some(DEADLINE))?;
        Ok(connection)
    }

    fn connection(&self) -> Connection {
        self.open(|info| info).expect("a connection")
    }
}

/// Runs the same directly and through the proxy, each with a server of its own; it must end the same.
fn same<T: Debug + PartialEq>(options: &Options, run: impl Fn(&Place) -> T) -> T {
    let pair = Pair::start(options, &["--workers", "2"]);
    let (direct, through) = (run(&Place(pair.bare.addr())), run(&Place(pair.proxy.addr())));
    assert_eq!(through, direct, "through the proxy (left) it ends differently");
    through
}

#[test]
fn values_and_pipelines() {
    let ended = same(&Options::default(), |place| {
        let mut c = place.connection();
        let () = c.set("text", "hello").expect("SET");
        let () = c.mset(&[("a", 1), ("b", 2)]).expect("MSET");
        let sum: (i64, Vec<Option<i64>>, String) = redis::pipe()
            .incr("a", 41)
            .mget(&["a", "b", "nosuch"])
            .get("text")
            .query(&mut c)
            .expect("a pipeline");
        let mut long = redis::pipe();
        for i in 0..5_000 {
            long.set(format!("k{i}"), i).ignore().get(format!("k{i}"));
        }
        let all: Vec<i64> = long.query(&mut c).expect("a long pipeline");
        let wrong: RedisResult<i64> = c.incr("text", 1);
        let bytes: Vec<u8> = (0..=255).cycle().take(2 << 20).collect();
        let () = c.set("bytes", &bytes).expect("SET");
        let again: Vec<u8> = c.get("bytes").expect("GET");
        (sum, all, wrong.map_err(|e| e.to_string()), again == bytes)
    });
    assert_eq!(ended.0, (42, vec![Some(42), Some(2), None], "hello".into()));
    assert_eq!(ended.1, (0..5_000).collect::<Vec<_>>());
    assert!(ended.2.is_err() && ended.3);
}

/// Two that increment the same key: each watches it, and one begins anew when the other was first.
#[test]
fn transactions() {
    let ended = same(&Options::default(), |place| {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut c = place.connection();
                    for _ in 0..50 {
                        let _: (i64,) = redis::transaction(&mut c, &["n"], |c, pipe| {
                            let n: Option<i64> = c.get("n")?;
                            pipe.set("n", n.unwrap_or(0) + 1).ignore().get("n").query(c)
                        })
                        .expect("a transaction");
                    }
                });
            }
        });
        let mut c = place.connection();
        let discarded: RedisResult<Value> = redis::pipe().atomic().set("x", 1).cmd("NOSUCH").query(&mut c);
        let partly: RedisResult<Value> = redis::pipe().atomic().set("y", "text").incr("y", 1).query(&mut c);
        let x: Option<i64> = c.get("x").expect("GET");
        let n: i64 = c.get("n").expect("GET");
        (n, discarded.map_err(|e| e.code().map(str::to_owned)), partly.map_err(|e| e.to_string()), x)
    });
    assert_eq!((ended.0, ended.3), (200, None));
    assert!(ended.1.is_err() && ended.2.is_err());
}

#[test]
fn publish_and_subscribe() {
    let ended = same(&Options::default(), |place| {
        let mut subscriber = place.connection();
        let mut publisher = place.connection();
        let mut heard = Vec::new();
        {
            let mut sub = subscriber.as_pubsub();
            sub.subscribe(&["news", "sport"]).expect("SUBSCRIBE");
            sub.psubscribe("w*").expect("PSUBSCRIBE");
            for (channel, text) in [("news", "one"), ("weather", "two"), ("nosuch", "x"), ("sport", "three")]
            {
                let _: i64 = publisher.publish(channel, text).expect("PUBLISH");
            }
            for _ in 0..3 {
                let message = sub.get_message().expect("a message");
                let pattern: Option<String> = message.get_pattern().expect("a pattern");
                let text: String = message.get_payload().expect("a payload");
                heard.push((message.get_channel_name().to_owned(), pattern, text));
            }
            sub.unsubscribe("news").expect("UNSUBSCRIBE");
        }
        // The subscriber is an ordinary client again.
        let () = subscriber.set("after", "works").expect("SET");
        let after: String = subscriber.get("after").expect("GET");
        let nobody: i64 = publisher.publish("sport", "x").expect("PUBLISH");
        (heard, after, nobody)
    });
    assert_eq!((ended.0.len(), ended.2), (3, 0));
}

#[test]
fn blocking_pops() {
    let ended = same(&Options::default(), |place| {
        let nothing: Option<(String, String)> = place.connection().blpop("queue", 0.05).expect("BLPOP");
        let mut taken = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        let mut c = place.connection();
                        let mut mine = Vec::new();
                        loop {
                            let (_, job): (String, String) = c.blpop("queue", 0.0).expect("BLPOP");
                            match job.as_str() {
                                "end" => return mine,
                                _ => mine.push(job),
                            }
                        }
                    })
                })
                .collect();
            let mut c = place.connection();
            for i in 0..100 {
                let _: i64 = c.rpush("queue", format!("job {i:02}")).expect("RPUSH");
            }
            for _ in &workers {
                let _: i64 = c.rpush("queue", "end").expect("RPUSH");
            }
            workers.into_iter().flat_map(|w| w.join().expect("a worker")).collect::<Vec<_>>()
        });
        taken.sort();
        (nothing, taken)
    });
    assert_eq!((ended.0, ended.1.len()), (None, 100));
}

#[test]
fn databases_and_protocols() {
    same(&Options::default(), |place| {
        let mut seen = Vec::new();
        for db in 0..4 {
            for protocol in [redis::ProtocolVersion::RESP2, redis::ProtocolVersion::RESP3] {
                let change = |info: ConnectionInfo| {
                    let settings = info.redis_settings().clone().set_db(db).set_protocol(protocol);
                    info.set_redis_settings(settings)
                };
                let mut c = place.open(change).expect("a connection");
                let _: i64 = c.incr("n", db + 1).expect("INCR");
                let _: i64 = c.hset("h", "field", 1).expect("HSET");
                let value = redis::cmd("HGETALL").arg("h").query::<Value>(&mut c).expect("HGETALL");
                let n: i64 = c.get("n").expect("GET");
                seen.push((value, n));
            }
        }
        let none = place.open(|info| {
            let settings = info.redis_settings().clone().set_db(99);
            info.set_redis_settings(settings)
        });
        (seen, none.err().map(|e| e.to_string()))
    });
}

#[test]
fn scripts() {
    let ended = same(&Options::default(), |place| {
        let mut c = place.connection();
        let script =
            Script::new("redis.call('SET', KEYS[1], ARGV[1]); return redis.call('GET', KEYS[1]) .. '!'");
        let once: String = script.key("k").arg("v").invoke(&mut c).expect("a script");
        let twice: String = script.key("k").arg("w").invoke(&mut c).expect("a script");
        let failing: RedisResult<i64> = Script::new("return redis.error_reply('OWN words')").invoke(&mut c);
        (once, twice, failing.map_err(|e| e.to_string()))
    });
    assert_eq!((ended.0.as_str(), ended.1.as_str()), ("v!", "w!"));
}

#[test]
fn users() {
    let options = Options {
        password: Some("sesame".into()),
        users: vec![
            "alice on >wonder ~alice:* &* +@all".into(),
            "bob on >builder ~bob:* &* +@all -@admin".into(),
        ],
        ..Options::default()
    };
    same(&options, |place| {
        let mut seen: Vec<Result<Vec<Value>, String>> = Vec::new();
        let people = [
            (None, None),
            (None, Some("sesame")),
            (None, Some("wrong")),
            (Some("alice"), Some("wonder")),
            (Some("alice"), Some("builder")),
            (Some("bob"), Some("builder")),
            (Some("nobody"), Some("x")),
        ];
        for (user, password) in people {
            let change = |info: ConnectionInfo| {
                let mut settings = info.redis_settings().clone();
                if let Some(user) = user {
                    settings = settings.set_username(user);
                }
                if let Some(password) = password {
                    settings = settings.set_password(password);
                }
                info.set_redis_settings(settings)
            };
            let run = || {
                let mut c = place.open(change)?;
                let mut all = Vec::new();
                for words in
                    ["ACL WHOAMI", "SET alice:k 1", "SET bob:k 2", "GET alice:k", "CONFIG GET maxmemory"]
                {
                    let mut cmd = redis::Cmd::new();
                    for word in words.split(' ') {
                        cmd.arg(word);
                    }
                    all.push(
                        cmd.query::<Value>(&mut c).unwrap_or_else(|e| Value::SimpleString(e.to_string())),
                    );
                }
                Ok(all)
            };
            seen.push(run().map_err(|e: redis::RedisError| e.to_string()));
        }
        seen
    });
}

/// A value of its own for each of many clients at once: none ever sees another's.
#[test]
fn many_clients_at_once() {
    let pair = Pair::start(&Options::default(), &["--workers", "2"]);
    let place = Place(pair.proxy.addr());
    std::thread::scope(|scope| {
        for i in 0..32u32 {
            let place = &place;
            scope.spawn(move || {
                let mut c = place.connection();
                let db = i % 3;
                let () = redis::cmd("SELECT").arg(db).query(&mut c).expect("SELECT");
                let () = redis::cmd("CLIENT")
                    .arg("SETNAME")
                    .arg(format!("me-{i}"))
                    .query(&mut c)
                    .expect("SETNAME");
                for round in 0..60 {
                    let (key, value) =
                        (format!("own {i}"), format!("{i}/{round}/{}", "x".repeat((i * 37 % 500) as usize)));
                    let () = c.set(&key, &value).expect("SET");
                    let (seen, name): (String, String) = redis::pipe()
                        .get(&key)
                        .cmd("CLIENT")
                        .arg("GETNAME")
                        .query(&mut c)
                        .expect("a pipeline");
                    assert_eq!((seen, name), (value.clone(), format!("me-{i}")));
                    if round % 10 == i % 10 {
                        let (seen,): (String,) =
                            redis::pipe().atomic().get(&key).query(&mut c).expect("EXEC");
                        assert_eq!(seen, value);
                    }
                }
            });
        }
    });
    eventually("all have left", || pair.fronted.count("clients", "blocked_clients") == 0);
}
