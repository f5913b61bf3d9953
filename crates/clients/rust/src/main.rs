//! What applications do with redis-rs and fred: `pointsman-clients-rust redis_rs | fred`, with `REDIS_HOST` and `REDIS_PORT`.
mod checks;
mod fred_client;
mod redis_rs;

#[tokio::main(worker_threads = 2)]
async fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("redis_rs") => redis_rs::run().await,
        Some("fred") => fred_client::run().await,
        other => panic!("there is no script {other:?}"),
    }
}
