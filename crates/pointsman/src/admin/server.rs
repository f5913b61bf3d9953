//! The admin listener. It trusts nobody: connections, their lifetime, headers and what a request may cost the rest of the
//! process are bounded; one connection carries one request.
//!
//! There is no password, so what changes something (POST) is for this host's own programs only, and not for its
//! browsers, which any web page can send here: see [`Local`]. What is read holds no secret.
use super::report::{Events, Outcome, not_ready, progress, report};
use super::{Account, Order, Running, Sample, prometheus};
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, ORIGIN, X_CONTENT_TYPE_OPTIONS};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::{Deserialize, Serialize};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Most connections at once; further ones wait in the listener's backlog.
pub(super) const CONNECTIONS_MAX: usize = 64;
/// Longest head of a request in bytes.
const HEAD_MAX: usize = 16 << 10;
/// In this time the head of the request must be there.
const HEAD_PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 500 } else { 5_000 });
/// In this time all of a connection is over, whoever is slow.
const CONNECTION_PATIENCE: Duration = Duration::from_secs(30);
/// So long a request waits for the process to answer what only looks.
const LOOK_PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 500 } else { 3_000 });
/// So long a request waits for a reload.
const ACT_PATIENCE: Duration = Duration::from_secs(20);
/// Samples begin at least this far apart, so that no one who asks often costs the workers much.
const SAMPLE_SPACING: Duration = Duration::from_millis(20);
/// What is under way when the listener is stopped may take so long to finish.
const STOP_PATIENCE: Duration = Duration::from_millis(500);

/// A running admin listener.
pub struct ServerHandle {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl ServerHandle {
    /// Stops listening, and waits until what was under way has finished, for less than a second.
    pub fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

/// Serves on `listener`, on a thread of its own.
///
/// # Errors
/// If the system gives no thread or no poll.
pub fn serve(listener: TcpListener, running: Arc<dyn Running>) -> io::Result<ServerHandle> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(KINDS_OF_CALLS)
        .build()?;
    let listener = {
        let _inside = runtime.enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    let (stop, stopped) = oneshot::channel();
    let router = router(Arc::new(Asked::new(running)));
    let thread = std::thread::Builder::new().name("admin".into()).spawn(move || {
        runtime.block_on(accept(listener, router, stopped));
        // A call that hangs is left behind.
        runtime.shutdown_timeout(Duration::from_millis(100));
    })?;
    Ok(ServerHandle { stop, thread })
}

async fn accept(listener: tokio::net::TcpListener, router: Router, mut stopped: oneshot::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => drop(connections.spawn(converse(stream, router.clone()))),
                // No file descriptors, or the like: others may give some back.
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }
    drop(listener);
    let _ = timeout(STOP_PATIENCE, async { while connections.join_next().await.is_some() {} }).await;
}

/// The two ends of a connection.
#[derive(Clone, Copy)]
struct Ends {
    peer: IpAddr,
    here: IpAddr,
}

async fn converse(stream: TcpStream, router: Router) {
    let (Ok(peer), Ok(here)) = (stream.peer_addr(), stream.local_addr()) else { return };
    let ip = |a: SocketAddr| a.ip().to_canonical();
    let ends = Ends { peer: ip(peer), here: ip(here) };
    let service = TowerToHyperService::new(router.layer(Extension(ends)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(HEAD_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // Whatever went wrong, it went wrong for this peer alone.
    let _ = timeout(CONNECTION_PATIENCE, connection).await;
}

fn router(asked: Arc<Asked>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/healthz", get(|| async { text(StatusCode::OK, "ok\n") }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/status", get(status))
        .route("/api/events", get(events))
        .route("/api/reload", post(reload))
        .route("/api/trust/{service}", post(trust))
        .route("/api/switchover/{service}", get(account).post(switchover))
        .route("/api/pause/{service}", post(pause))
        .route("/api/resume/{service}", post(resume))
        .method_not_allowed_fallback(|| async {
            text(StatusCode::METHOD_NOT_ALLOWED, "not with this method; / says which\n")
        })
        .fallback(|| async { text(StatusCode::NOT_FOUND, "no such page; / lists those that there are\n") })
        .with_state(asked)
}

const INDEX: &str = "\
Pointsman's admin listener

GET  /healthz                 200 as long as the process lives
GET  /readyz                  200 if each service has an open gate, else 503 and why
GET  /metrics                 for Prometheus
GET  /api/status              everything that is known now, as JSON
GET  /api/events?after=N      what changed since event N and why, as JSON
POST /api/reload              read the configuration again           (from this host, not from a browser)
POST /api/trust/SERVICE       accept a new era of config epochs      (from this host, not from a browser)
POST /api/switchover/SERVICE  change the master; ?to=NODE            (from this host, not from a browser)
GET  /api/switchover/SERVICE  how that goes, as JSON
POST /api/pause/SERVICE       hold commands; ?ms=30000               (from this host, not from a browser)
POST /api/resume/SERVICE      and let them go on                     (from this host, not from a browser)
";

async fn index() -> Response {
    text(StatusCode::OK, INDEX)
}

async fn readyz(State(asked): State<Arc<Asked>>) -> Result<Response, Unanswered> {
    let reasons = not_ready(&*asked.sample().await?);
    if reasons.is_empty() {
        return Ok(text(StatusCode::OK, "ok\n"));
    }
    Ok(text(StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n"))
}

async fn metrics(State(asked): State<Arc<Asked>>) -> Result<Response, Unanswered> {
    let page = prometheus::render(asked.sample().await?).map_err(|_| Unanswered::Broken)?;
    Ok(answer(StatusCode::OK, prometheus::MEDIA_TYPE, page))
}

async fn status(State(asked): State<Arc<Asked>>) -> Result<Response, Unanswered> {
    Ok(json(StatusCode::OK, &report(&*asked.sample().await?)))
}

#[derive(Deserialize)]
struct After {
    #[serde(default)]
    after: u64,
}

async fn events(
    State(asked): State<Arc<Asked>>,
    Query(After { after }): Query<After>,
) -> Result<Response, Unanswered> {
    Ok(json(StatusCode::OK, &asked.events(after).await?))
}

async fn reload(_: Local, State(asked): State<Arc<Asked>>) -> Result<Response, Unanswered> {
    asked.act(|running| running.reload()).await.map(outcome)
}

async fn trust(
    _: Local,
    State(asked): State<Arc<Asked>>,
    Path(service): Path<String>,
) -> Result<Response, Unanswered> {
    asked.act(move |running| running.trust(&service)).await.map(outcome)
}

/// What `POST /api/switchover/SERVICE` can say.
#[derive(Deserialize)]
struct Wanted {
    to: Option<String>,
    /// `NODE=PRIORITY`, with commas between.
    #[serde(default)]
    restore: String,
}

async fn switchover(
    _: Local,
    State(asked): State<Arc<Asked>>,
    Path(service): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Unanswered> {
    let order = match priorities(&wanted.restore) {
        Ok(restore) => Order { to: wanted.to.map(Into::into), restore },
        Err(error) => return Ok(refusal(StatusCode::BAD_REQUEST, &error)),
    };
    asked.act(move |running| running.switchover(&service, order)).await.map(outcome)
}

/// Reads `NODE=PRIORITY,NODE=PRIORITY`.
fn priorities(text: &str) -> Result<Vec<(Arc<str>, u32)>, String> {
    let one = |part: &str| {
        let (node, priority) = part.rsplit_once('=')?;
        Some((node.into(), priority.parse().ok()?))
    };
    let parts = text.split(',').filter(|part| !part.is_empty());
    parts.map(|p| one(p).ok_or_else(|| format!("'{p}' is not NODE=PRIORITY"))).collect()
}

async fn account(
    State(asked): State<Arc<Asked>>,
    Path(service): Path<String>,
) -> Result<Response, Unanswered> {
    let account = asked.account(service).await?;
    Ok(match account {
        Some(account) => json(StatusCode::OK, &progress(&account)),
        None => refusal(StatusCode::NOT_FOUND, "there was no switchover of such a service"),
    })
}

/// What `POST /api/pause/SERVICE` can say.
#[derive(Deserialize)]
struct Span {
    #[serde(default = "usual_pause")]
    ms: u64,
}

fn usual_pause() -> u64 {
    30_000
}

async fn pause(
    _: Local,
    State(asked): State<Arc<Asked>>,
    Path(service): Path<String>,
    Query(Span { ms }): Query<Span>,
) -> Result<Response, Unanswered> {
    asked.act(move |running| running.pause(&service, Duration::from_millis(ms))).await.map(outcome)
}

async fn resume(
    _: Local,
    State(asked): State<Arc<Asked>>,
    Path(service): Path<String>,
) -> Result<Response, Unanswered> {
    asked.act(move |running| running.resume(&service)).await.map(outcome)
}

fn outcome(result: Result<String, String>) -> Response {
    match result {
        Ok(done) => json(StatusCode::OK, &Outcome { done: Some(done), error: None }),
        Err(error) => refusal(StatusCode::CONFLICT, &error),
    }
}

/// The running process, asked in a way that bounds what asking costs it: one call of each kind at a time, on a thread of
/// its own. A call outlives the request that wanted it.
struct Asked {
    running: Arc<dyn Running>,
    newest: Arc<Mutex<Option<Newest>>>,
    event_call: Arc<Mutex<()>>,
    act_call: Arc<Mutex<()>>,
}

/// The newest sample, and when it was begun.
type Newest = (Instant, Arc<Sample>);

/// `sample`; `events` and accounts; and what acts.
const KINDS_OF_CALLS: usize = 3;

impl Asked {
    fn new(running: Arc<dyn Running>) -> Asked {
        Asked { running, newest: Arc::default(), event_call: Arc::default(), act_call: Arc::default() }
    }

    /// A sample that was begun after this was called: requests that come together share one.
    async fn sample(&self) -> Result<Arc<Sample>, Unanswered> {
        let asked = Instant::now();
        within(LOOK_PATIENCE, async {
            let mut newest = self.newest.clone().lock_owned().await;
            if let Some((began, sample)) = &*newest {
                if *began >= asked {
                    return Ok(sample.clone());
                }
                sleep_until(*began + SAMPLE_SPACING).await;
            }
            let running = self.running.clone();
            call(move || {
                let began = Instant::now();
                let sample = Arc::new(running.sample());
                *newest = Some((began, sample.clone()));
                sample
            })
            .await
        })
        .await
    }

    async fn events(&self, after: u64) -> Result<Events, Unanswered> {
        self.alone(&self.event_call, LOOK_PATIENCE, move |running| running.events(after)).await
    }

    async fn account(&self, service: String) -> Result<Option<Account>, Unanswered> {
        self.alone(&self.event_call, LOOK_PATIENCE, move |running| running.account(&service)).await
    }

    async fn act<T: Send + 'static>(
        &self,
        f: impl FnOnce(&dyn Running) -> T + Send + 'static,
    ) -> Result<T, Unanswered> {
        self.alone(&self.act_call, ACT_PATIENCE, f).await
    }

    async fn alone<T: Send + 'static>(
        &self,
        kind: &Arc<Mutex<()>>,
        patience: Duration,
        f: impl FnOnce(&dyn Running) -> T + Send + 'static,
    ) -> Result<T, Unanswered> {
        within(patience, async {
            let turn: OwnedMutexGuard<()> = kind.clone().lock_owned().await;
            let running = self.running.clone();
            call(move || {
                let _turn = turn;
                f(&*running)
            })
            .await
        })
        .await
    }
}

async fn within<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, Unanswered>>,
) -> Result<T, Unanswered> {
    timeout(patience, work).await.unwrap_or(Err(Unanswered::Late(patience)))
}

async fn call<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> Result<T, Unanswered> {
    tokio::task::spawn_blocking(f).await.map_err(|_| Unanswered::Broken)
}

/// Why the process could not be asked.
enum Unanswered {
    /// It did not answer in time.
    Late(Duration),
    /// It panicked: a bug.
    Broken,
}

impl IntoResponse for Unanswered {
    fn into_response(self) -> Response {
        match self {
            Unanswered::Late(patience) => refusal(
                StatusCode::SERVICE_UNAVAILABLE,
                &format!("no answer after {patience:?}; what was begun goes on"),
            ),
            Unanswered::Broken => {
                refusal(StatusCode::INTERNAL_SERVER_ERROR, "this failed inside; the log says more")
            }
        }
    }
}

/// A request that comes from a program of this host, and not from its browser.
///
/// - The peer is a loopback address, or the very address that it connected to.
/// - There is no `Origin`: browsers send one with every POST, so that no web page can act in its reader's name (CSRF).
/// - `Host` is `localhost`, or such an address: a page whose own name was made to resolve to this host (DNS rebinding) is
///   refused even by a browser that sends no `Origin`.
struct Local;

impl<S: Sync> FromRequestParts<S> for Local {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Local, Response> {
        let ends = parts.extensions.get::<Ends>();
        let refused = match ends {
            Some(ends) if !is_here(ends.peer, ends) => "this is for programs of the host itself",
            Some(_) if parts.headers.contains_key(ORIGIN) => {
                "this is not for browsers (the request has an Origin)"
            }
            Some(ends) if !names_here(&parts.headers, &parts.uri, ends) => {
                "Host must be localhost or an address of this listener"
            }
            Some(_) => return Ok(Local),
            None => "where this comes from is not known",
        };
        Err(refusal(StatusCode::FORBIDDEN, refused))
    }
}

fn is_here(ip: IpAddr, ends: &Ends) -> bool {
    ip.is_loopback() || ip == ends.here
}

fn names_here(headers: &HeaderMap, uri: &Uri, ends: &Ends) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None, None) = (hosts.next(), hosts.next(), uri.authority()) else { return false };
    let Some(authority) = host.to_str().ok().and_then(|h| h.parse::<axum::http::uri::Authority>().ok())
    else {
        return false;
    };
    let host = authority.host();
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| is_here(ip.to_canonical(), ends))
}

fn text(status: StatusCode, body: impl Into<String>) -> Response {
    answer(status, "text/plain; charset=utf-8", body.into())
}

fn refusal(status: StatusCode, error: &str) -> Response {
    json(status, &Outcome { done: None, error: Some(error.to_owned()) })
}

fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_string(body) {
        Ok(body) => answer(status, "application/json", body + "\n"),
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "this could not be written as JSON\n"),
    }
}

fn answer(status: StatusCode, media_type: &'static str, body: String) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(media_type)),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (status, headers, body).into_response()
}
