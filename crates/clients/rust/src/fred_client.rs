//! fred: its client, its pool, its subscriber.
use crate::checks::{DEADLINE, Outcome, Workloads, addr, equal, library, test, told};
use fred::prelude::*;
use fred::types::RespVersion;
use fred::types::scripts::Script;
use serde_json::json;
use std::time::Duration;

fn config(version: RespVersion) -> Config {
    let (host, port) = addr();
    Config { server: ServerConfig::new_centralized(host, port), version, ..Config::default() }
}

/// With time for a machine that is busy.
fn builder(config: Config) -> Builder {
    let mut builder = Builder::from_config(config);
    builder.with_connection_config(|connection| {
        connection.connection_timeout = DEADLINE;
        connection.internal_command_timeout = DEADLINE;
    });
    builder
}

/// It never connects twice, so that a lost connection is an error and not repaired.
async fn connect(config: Config) -> Result<Client, Error> {
    let client = builder(config).build()?;
    client.init().await?;
    Ok(client)
}

async fn plain() -> Result<Client, Error> {
    connect(config(RespVersion::RESP2)).await
}

pub async fn run() {
    library("fred");
    test("handshake", handshake()).await;
    test("values", values()).await;
    test("pipelines", pipelines()).await;
    test("transactions", transactions()).await;
    test("publish and subscribe", publish_and_subscribe()).await;
    test("blocking", blocking()).await;
    test("scripts", scripts()).await;
    test("pools", pools()).await;
    test("reconnection", reconnection()).await;
    switch().await;
}

async fn handshake() -> Outcome {
    let mut seen = vec![];
    for version in [RespVersion::RESP2, RespVersion::RESP3] {
        for (user, password, database) in [
            (None, None, 3),
            (Some("alice"), Some("secret"), 3),
            (Some("alice"), Some("wrong"), 0),
            (None, None, 99),
        ] {
            let config = Config {
                username: user.map(str::to_owned),
                password: password.map(str::to_owned),
                database: Some(database),
                ..config(version.clone())
            };
            seen.push(match connect(config).await {
                Ok(c) => told(c.acl_whoami::<String>().await),
                Err(e) => e.to_string(),
            });
        }
    }
    Ok(json!(seen))
}

async fn values() -> Outcome {
    let mut seen = vec![];
    for version in [RespVersion::RESP2, RespVersion::RESP3] {
        let c = connect(config(version)).await?;
        c.flushall::<()>(false).await?;
        c.set::<(), _, _>("a", 1, Some(Expiration::EX(100)), None, false).await?;
        c.hset::<(), _, _>("h", [("x", "1")]).await?;
        c.zadd::<(), _, _>("z", None, None, false, false, (1.5, "b")).await?;
        c.rpush::<(), _, _>("l", vec!["1", "2"]).await?;
        let values: [Value; 5] = [
            c.get("a").await?,
            c.get("nosuch").await?,
            c.hgetall("h").await?,
            c.lrange("l", 0, -1).await?,
            c.zrange("z", 0, -1, None, false, None, true).await?,
        ];
        seen.push(json!([format!("{values:?}"), told(c.lpush::<i64, _, _>("a", 1).await)]));
    }
    Ok(json!(seen))
}

async fn pipelines() -> Outcome {
    let c = plain().await?;
    let pipe = c.pipeline();
    for i in 0..2_000 {
        pipe.set::<(), _, _>(format!("k{i}"), i, None, None, false).await?;
        pipe.incr::<(), _>(format!("k{i}")).await?;
    }
    let all: Vec<Value> = pipe.all().await?;
    let numbers: Vec<i64> =
        all.into_iter().skip(1).step_by(2).map(Value::convert).collect::<Result<_, _>>()?;
    equal(numbers, (1..=2_000).collect())?;
    Ok(json!("all there"))
}

async fn transactions() -> Outcome {
    let c = plain().await?;
    let multi = c.multi();
    multi.set::<(), _, _>("n", 1, None, None, false).await?;
    multi.incr_by::<(), _>("n", 41).await?;
    let whole: (String, i64) = multi.exec(true).await?;
    let multi = c.multi();
    multi.set::<(), _, _>("y", "text", None, None, false).await?;
    multi.incr::<(), _>("y").await?;
    let partly = multi.exec::<Value>(true).await;
    Ok(json!([whole, told(partly), c.get::<String, _>("y").await?]))
}

async fn publish_and_subscribe() -> Outcome {
    let mut seen = vec![];
    for version in [RespVersion::RESP2, RespVersion::RESP3] {
        let (c, sub) = (plain().await?, connect(config(version)).await?);
        let mut messages = sub.message_rx();
        sub.subscribe(vec!["news", "sport"]).await?;
        sub.psubscribe("w*").await?;
        confirmed(&c, 1).await?;
        for (channel, text) in [("news", "one"), ("weather", "two"), ("nosuch", "x")] {
            seen.push(json!(c.publish::<i64, _, _>(channel, text).await?));
        }
        for _ in 0..2 {
            let message = messages.recv().await?;
            seen.push(json!([message.channel.to_string(), message.value.as_string()]));
        }
        sub.unsubscribe("news").await?;
        sub.punsubscribe("w*").await?;
        confirmed(&c, 0).await?;
        seen.push(json!(c.publish::<i64, _, _>("news", "nobody").await?));
    }
    Ok(json!(seen))
}

/// fred does not wait until the server has subscribed it; this does, for what ends with a pattern.
async fn confirmed(c: &Client, patterns: i64) -> Result<(), Error> {
    while c.pubsub_numpat::<i64>().await? != patterns {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

async fn blocking() -> Outcome {
    let c = plain().await?;
    // For fred that is an error of its own.
    let nothing = told(c.blpop::<Value, _>("queue", 0.05).await);
    let workers: Vec<_> = (0..4)
        .map(|_| {
            tokio::spawn(async {
                let (c, mut mine) = (plain().await?, vec![]);
                loop {
                    let (_, job): (String, i64) = c.blpop("queue", 0.0).await?;
                    if job < 0 {
                        return Ok::<_, Error>(mine);
                    }
                    mine.push(job);
                }
            })
        })
        .collect();
    let jobs: Vec<i64> = (0..100).collect();
    c.rpush::<(), _, _>("queue", jobs.clone()).await?;
    c.rpush::<(), _, _>("queue", vec![-1, -1, -1, -1]).await?;
    let mut taken = vec![];
    for worker in workers {
        taken.extend(worker.await??);
    }
    taken.sort_unstable();
    Ok(json!([nothing, taken == jobs]))
}

async fn scripts() -> Outcome {
    let c = plain().await?;
    let add = Script::from_lua("return redis.call('INCRBY', KEYS[1], ARGV[1])");
    add.load(&c).await?;
    let first: i64 = add.evalsha(&c, "k", 5).await?;
    c.script_flush(false).await?;
    let unknown = add.evalsha::<i64, _, _, _>(&c, "k", 5).await;
    let again: i64 = add.evalsha_with_reload(&c, "k", 5).await?;
    Ok(json!([first, told(unknown), again]))
}

async fn pools() -> Outcome {
    let pool = builder(config(RespVersion::RESP3)).build_pool(5)?;
    pool.init().await?;
    let tasks = (0..100).map(|i| {
        let pool = pool.clone();
        tokio::spawn(async move {
            for n in 0..20 {
                pool.set::<(), _, _>(format!("own{i}"), n, None, None, false).await?;
            }
            pool.get::<i64, _>(format!("own{i}")).await
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        equal(task.await??, 19)?;
    }
    Ok(json!("each its own"))
}

async fn reconnection() -> Outcome {
    let mut builder = builder(Config { database: Some(5), ..config(RespVersion::RESP2) });
    let c = builder.set_policy(ReconnectPolicy::new_constant(100, 50)).build()?;
    c.init().await?;
    c.set::<(), _, _>("k", "v", None, None, false).await?;
    c.force_reconnection().await?;
    Ok(json!(c.get::<String, _>("k").await?))
}

async fn switch() {
    let mut workloads = Workloads::default();
    workloads.start("switch counters", |mut going| async move {
        let (c, mut n) = (plain().await?, 0);
        while going.on() {
            n += 1;
            equal(c.incr::<i64, _>("switch:n").await?, n)?;
        }
        Ok(json!("each counted once"))
    });
    workloads.start("switch transactions", |mut going| async move {
        let (c, mut n) = (connect(config(RespVersion::RESP3)).await?, 0);
        while going.on() {
            n += 1;
            let multi = c.multi();
            multi.incr::<(), _>("switch:a").await?;
            multi.incr::<(), _>("switch:b").await?;
            match multi.exec::<(i64, i64)>(true).await {
                Ok(both) => equal(both, (n, n))?,
                // It sends a transaction in pieces; the application has to repeat it.
                Err(e) if e.details().starts_with("EXECABORT") => n -= 1,
                Err(e) => return Err(e.into()),
            }
        }
        Ok(json!("both counted alike"))
    });
    workloads.start("switch subscribers", |mut going| async move {
        let (c, sub) = (plain().await?, plain().await?);
        let mut messages = sub.message_rx();
        let heard = tokio::spawn(async move {
            while messages.recv().await.is_ok_and(|message| message.value.as_str().as_deref() != Some("last"))
            {
            }
        });
        sub.subscribe("switch:news").await?;
        // What is published during a switch may be lost, as with Redis.
        while going.on() {
            c.publish::<(), _, _>("switch:news", "more").await?;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        equal(c.publish::<i64, _, _>("switch:news", "last").await?, 1)?;
        tokio::time::timeout(DEADLINE, heard).await??;
        Ok(json!("still subscribed"))
    });
    workloads.start("switch blocked workers", |mut going| async move {
        let c = plain().await?;
        let worker =
            tokio::spawn(async { plain().await?.blpop::<(String, String), _>("switch:queue", 0.0).await });
        while going.on() {
            c.ping::<()>(None).await?;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        c.rpush::<(), _, _>("switch:queue", "job").await?;
        Ok(json!(worker.await??))
    });
    workloads.through_a_switch().await;
}
