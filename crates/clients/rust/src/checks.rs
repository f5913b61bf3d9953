//! What the scripts for Rust share: tests in their order, and workloads that go on while the runner changes the master.
//!
//! A script prints one line of JSON for each test. Whatever it prints must be the same from a server and through the proxy.
use serde_json::{Value, json};
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::task::JoinHandle;

/// Longer than anything here takes, on the slowest machine.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// What a test or a workload gives: its result, or why it failed.
pub type Outcome = Result<Value, Box<dyn std::error::Error + Send + Sync>>;

/// `host:port` of the server.
pub fn addr() -> (String, u16) {
    let is_set = "the runner sets it";
    (
        std::env::var("REDIS_HOST").expect(is_set),
        std::env::var("REDIS_PORT").expect(is_set).parse().expect("a port"),
    )
}

/// Prints which library it is.
pub fn library(name: &str) {
    let lock: &str = include_str!("../Cargo.lock");
    let entry = lock.split("[[package]]").find(|entry| entry.contains(&format!("name = \"{name}\"\n")));
    let version = entry.and_then(|entry| entry.split('"').nth(3)).expect("it is in the lock file");
    let name = if name == "redis" { "redis-rs" } else { name };
    println!("{}", json!({"library": name, "version": version}));
}

/// Runs a test, and prints its result.
pub async fn test(name: &str, run: impl Future<Output = Outcome>) {
    println!("{}", line(name, within(run).await));
}

/// An error as text, or the value.
pub fn told<T: std::fmt::Debug, E: Display>(result: Result<T, E>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(e) => e.to_string(),
    }
}

/// Says yes until the switch is over, and then a few times more, so that each workload speaks to the new master.
pub struct Going {
    switched: Arc<AtomicBool>,
    left: u32,
}

impl Going {
    pub fn on(&mut self) -> bool {
        self.left -= u32::from(self.switched.load(Relaxed));
        self.left > 0
    }
}

/// Workloads that go on while the master changes.
#[derive(Default)]
pub struct Workloads {
    switched: Arc<AtomicBool>,
    running: Vec<(&'static str, JoinHandle<Value>)>,
}

impl Workloads {
    /// Starts one.
    pub fn start<F>(&mut self, name: &'static str, run: impl FnOnce(Going) -> F)
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let run = run(Going { switched: self.switched.clone(), left: 20 });
        self.running.push((name, tokio::spawn(async move { line(name, within(run).await) })));
    }

    /// Has the master changed, and prints what each gave.
    pub async fn through_a_switch(self) {
        // Each has begun, and most have said a lot.
        tokio::time::sleep(Duration::from_millis(300)).await;
        println!("{}", json!({"switch": true}));
        tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()))
            .await
            .expect("it does not panic")
            .expect("the runner answers");
        self.switched.store(true, Relaxed);
        for (name, run) in self.running {
            let line = run.await.unwrap_or_else(|e| json!({"test": name, "failed": e.to_string()}));
            println!("{line}");
        }
    }
}

async fn within(run: impl Future<Output = Outcome>) -> Outcome {
    tokio::time::timeout(DEADLINE, run).await.unwrap_or_else(|_| Err("it does not end".into()))
}

fn line(name: &str, outcome: Outcome) -> Value {
    match outcome {
        Ok(result) => json!({"test": name, "result": result}),
        Err(e) => json!({"test": name, "failed": e.to_string()}),
    }
}

/// An error if they are not equal.
pub fn equal<T: PartialEq + std::fmt::Debug>(is: T, should: T) -> Result<(), String> {
    if is == should { Ok(()) } else { Err(format!("{is:?} and not {should:?}")) }
}
