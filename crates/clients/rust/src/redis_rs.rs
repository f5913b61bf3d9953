//! redis-rs: its multiplexed connection and its connection manager. (Its plain connections: crates/pointsman/tests/e2e/client_library.rs.)
use crate::checks::{DEADLINE, Outcome, Workloads, addr, equal, library, test, told};
use futures_util::StreamExt;
use redis::aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection};
use redis::{AsyncCommands, AsyncConnectionConfig, Client, RedisResult, Script, Value, pipe};
use serde_json::json;
use std::time::Duration;

fn client(user: &str, tail: &str) -> RedisResult<Client> {
    let (host, port) = addr();
    Client::open(format!("redis://{user}{host}:{port}{tail}"))
}

/// Its own limits of half a second for a reply and one for a connection would end what waits for a switch.
async fn connect(tail: &str) -> RedisResult<MultiplexedConnection> {
    connect_as("", tail).await
}

async fn connect_as(user: &str, tail: &str) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_response_timeout(Some(DEADLINE))
        .set_connection_timeout(Some(DEADLINE));
    client(user, tail)?.get_multiplexed_async_connection_with_config(&config).await
}

/// Without a limit: it waits for an element.
async fn connect_to_wait() -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
    client("", "")?.get_multiplexed_async_connection_with_config(&config).await
}

pub async fn run() {
    library("redis");
    test("handshake", handshake()).await;
    test("values", values()).await;
    test("pipelines", pipelines()).await;
    test("transactions", transactions()).await;
    test("publish and subscribe", publish_and_subscribe()).await;
    test("blocking", blocking()).await;
    test("scripts", scripts()).await;
    test("connection manager", connection_manager()).await;
    switch().await;
}

async fn handshake() -> Outcome {
    let mut seen = vec![];
    for protocol in ["resp2", "resp3"] {
        for (user, db) in [("", 3), ("alice:secret@", 3), ("alice:wrong@", 0), ("nobody:x@", 0), ("", 99)] {
            seen.push(match connect_as(user, &format!("/{db}?protocol={protocol}")).await {
                Ok(mut c) => told(redis::cmd("ACL").arg("WHOAMI").query_async::<String>(&mut c).await),
                Err(e) => e.to_string(),
            });
        }
    }
    Ok(json!(seen))
}

async fn values() -> Outcome {
    let mut seen = vec![];
    for protocol in ["resp2", "resp3"] {
        let mut c = connect(&format!("/?protocol={protocol}")).await?;
        let bytes: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
        let (): () = redis::cmd("FLUSHDB").query_async(&mut c).await?;
        let (): () = c.set("bytes", &bytes).await?;
        let same = c.get::<_, Vec<u8>>("bytes").await? == bytes;
        let (): () = c.hset_multiple("h", &[("x", 1), ("y", 2)]).await?;
        let all: Vec<Value> = pipe()
            .set("a", 1)
            .get("nosuch")
            .hgetall("h")
            .rpush("l", &[1, 2])
            .lrange("l", 0, -1)
            .zadd("z", "b", 1.5)
            .zrange_withscores("z", 0, -1)
            .sadd("s", "one")
            .smembers("s")
            .query_async(&mut c)
            .await?;
        seen.push(json!([same, format!("{all:?}"), told(c.lpush::<_, _, i64>("a", 1).await)]));
    }
    Ok(json!(seen))
}

async fn pipelines() -> Outcome {
    let mut c = connect("").await?;
    let mut long = pipe();
    for i in 0..2_000 {
        long.set(format!("k{i}"), i).ignore().get(format!("k{i}"));
    }
    equal(long.query_async(&mut c).await?, (0..2_000).collect::<Vec<i32>>())?;
    // Many tasks on one connection.
    let tasks = (0..100).map(|i| {
        let mut c = c.clone();
        tokio::spawn(async move {
            for n in 0..20 {
                let (): () = c.set(format!("own{i}"), n).await?;
                equal(c.get(format!("own{i}")).await?, n)?;
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await??;
    }
    Ok(json!("each reply to its task"))
}

async fn transactions() -> Outcome {
    let mut c = connect("").await?;
    let whole: (String, i64) = pipe().atomic().set("n", 1).incr("n", 41).query_async(&mut c).await?;
    let discarded = pipe().atomic().set("x", 1).cmd("NOSUCH").query_async::<Value>(&mut c).await;
    let partly = pipe().atomic().set("y", "text").incr("y", 1).query_async::<Value>(&mut c).await;
    let x: Option<i64> = c.get("x").await?;
    let (mut one, mut other) = (connect("").await?, connect("").await?);
    let (): () = redis::cmd("WATCH").arg("n").query_async(&mut one).await?;
    let (): () = other.set("n", 7).await?;
    let lost: Option<Vec<Value>> = pipe().atomic().set("n", 8).query_async(&mut one).await?;
    Ok(json!([whole, told(discarded), told(partly), x, format!("{lost:?}"), c.get::<_, i64>("n").await?]))
}

async fn publish_and_subscribe() -> Outcome {
    let mut c = connect("").await?;
    let mut sub = client("", "")?.get_async_pubsub().await?;
    sub.subscribe(&["news", "sport"]).await?;
    sub.psubscribe("w*").await?;
    let mut heard = vec![];
    for (channel, text) in [("news", "one"), ("weather", "two"), ("nosuch", "x"), ("sport", "three")] {
        heard.push(json!(c.publish::<_, _, i64>(channel, text).await?));
    }
    for _ in 0..3 {
        let message = sub.on_message().next().await.ok_or("the subscriber is closed")?;
        heard.push(json!([message.get_channel_name(), message.get_payload::<String>()?]));
    }
    // With RESP3 a connection that many share subscribes too.
    let (sender, mut pushes) = tokio::sync::mpsc::unbounded_channel();
    let config = AsyncConnectionConfig::new().set_push_sender(sender).set_response_timeout(Some(DEADLINE));
    let mut shared =
        client("", "/?protocol=resp3")?.get_multiplexed_async_connection_with_config(&config).await?;
    shared.subscribe("shared").await?;
    let (): () = shared.set("from", "a subscriber").await?;
    heard.push(json!(c.publish::<_, _, i64>("shared", "four").await?));
    for _ in 0..2 {
        heard.push(json!(format!("{:?}", pushes.recv().await)));
    }
    Ok(json!([heard, c.get::<_, String>("from").await?]))
}

async fn blocking() -> Outcome {
    let mut c = connect("").await?;
    let nothing: Option<(String, String)> = c.blpop("queue", 0.05).await?;
    let workers: Vec<_> = (0..4)
        .map(|_| {
            tokio::spawn(async {
                let (mut c, mut mine) = (connect_to_wait().await?, vec![]);
                loop {
                    let (_, job): (String, i32) = c.blpop("queue", 0.0).await?;
                    if job < 0 {
                        return RedisResult::Ok(mine);
                    }
                    mine.push(job);
                }
            })
        })
        .collect();
    let jobs: Vec<i32> = (0..100).collect();
    let _: i64 = c.rpush("queue", &jobs).await?;
    let _: i64 = c.rpush("queue", &[-1, -1, -1, -1]).await?;
    let mut taken = vec![];
    for worker in workers {
        taken.extend(worker.await??);
    }
    taken.sort_unstable();
    Ok(json!([nothing, taken == jobs]))
}

async fn scripts() -> Outcome {
    let mut c = connect("").await?;
    let add = Script::new("return redis.call('INCRBY', KEYS[1], ARGV[1])");
    let first: i64 = add.key("k").arg(5).invoke_async(&mut c).await?;
    let (): () = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut c).await?;
    let again: i64 = add.key("k").arg(5).invoke_async(&mut c).await?;
    let wrong = redis::cmd("EVALSHA").arg("0".repeat(40)).arg(0).query_async::<Value>(&mut c).await;
    Ok(json!([first, again, told(wrong)]))
}

async fn connection_manager() -> Outcome {
    let config = ConnectionManagerConfig::new().set_response_timeout(Some(DEADLINE));
    let mut c = ConnectionManager::new_with_config(client("", "/5")?, config).await?;
    let (): () = c.set("k", "v").await?;
    let quit = redis::cmd("QUIT").query_async::<String>(&mut c).await;
    // It connects again once it has seen that.
    let mut tries = 0;
    let value: String = loop {
        match c.get("k").await {
            Ok(value) => break value,
            Err(_) if tries < 200 => tries += 1,
            Err(e) => return Err(e.into()),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    Ok(json!([told(quit), value]))
}

async fn switch() {
    let mut workloads = Workloads::default();
    workloads.start("switch counters", |mut going| async move {
        let (mut c, mut n) = (connect("").await?, 0);
        while going.on() {
            n += 1;
            equal(c.incr::<_, _, i64>("switch:n", 1).await?, n)?;
        }
        Ok(json!("each counted once"))
    });
    workloads.start("switch transactions", |mut going| async move {
        let (mut c, mut n) = (connect("/?protocol=resp3").await?, 0);
        while going.on() {
            n += 1;
            let both = pipe().atomic().incr("switch:a", 1).incr("switch:b", 1).query_async(&mut c).await?;
            equal::<(i64, i64)>(both, (n, n))?;
        }
        Ok(json!("both counted alike"))
    });
    workloads.start("switch scripts", |mut going| async move {
        let (mut c, mut n) = (connect("").await?, 0);
        let next = Script::new("return redis.call('INCR', KEYS[1])");
        while going.on() {
            n += 1;
            equal(next.key("switch:script").invoke_async::<i64>(&mut c).await?, n)?;
        }
        Ok(json!("each ran once"))
    });
    workloads.start("switch subscribers", |mut going| async move {
        let mut c = connect("").await?;
        let mut sub = client("", "")?.get_async_pubsub().await?;
        sub.subscribe("switch:news").await?;
        // What is published during a switch may be lost, as with Redis.
        while going.on() {
            let _: i64 = c.publish("switch:news", "more").await?;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        equal(c.publish::<_, _, i64>("switch:news", "last").await?, 1)?;
        let mut messages = sub.on_message();
        while messages.next().await.ok_or("the subscriber is closed")?.get_payload::<String>()? != "last" {}
        Ok(json!("still subscribed"))
    });
    workloads.start("switch blocked workers", |mut going| async move {
        let mut c = connect("").await?;
        let worker = tokio::spawn(async {
            connect_to_wait().await?.blpop::<_, (String, String)>("switch:queue", 0.0).await
        });
        while going.on() {
            let (): () = c.ping().await?;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let _: i64 = c.rpush("switch:queue", "job").await?;
        Ok(json!(worker.await??))
    });
    workloads.through_a_switch().await;
}
