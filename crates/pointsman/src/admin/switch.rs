//! `pointsman switchover | pause | resume`: the side of who asks.
use super::client::{act, escaped, get, understood};
use super::report::{Progress, Remark};
use std::io::Write;
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How often it is asked how a switchover goes.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A process that answers nothing for so long is taken for dead.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// Has the process whose admin listener is at `address` change the master of `service`, and writes each step to `out` as
/// it is taken. `restore` has entries `NODE=PRIORITY`: then nothing but that is done.
///
/// # Errors
/// Why the master was not changed; and if the process died meanwhile, what it has left behind.
pub fn switchover(
    address: SocketAddr,
    service: &str,
    to: Option<&str>,
    restore: &[String],
    out: &mut dyn Write,
) -> Result<String, String> {
    let mut path = format!("/api/switchover/{}", escaped(service));
    let to = to.map(|node| format!("to={}", escaped(node)));
    let restore = (!restore.is_empty()).then(|| format!("restore={}", escaped(&restore.join(","))));
    let query: Vec<String> = to.into_iter().chain(restore).collect();
    let looks = path.clone();
    if !query.is_empty() {
        path += &format!("?{}", query.join("&"));
    }
    act(address, &path)?;
    follow(address, &looks, out)
}

fn follow(address: SocketAddr, path: &str, out: &mut dyn Write) -> Result<String, String> {
    let (mut last, mut heard) = (Progress::default(), Instant::now());
    loop {
        match get(address, path).and_then(|answer| understood::<Progress>(address, &answer)) {
            Ok(now) if last.number != 0 && now.number != last.number => {
                return Err("another switchover was begun meanwhile; `pointsman events` tells of both".into());
            }
            Ok(now) => {
                for remark in now.said.iter().skip(last.said.len()) {
                    // Whoever read this is gone; the switchover goes on all the same.
                    let _ = writeln!(out, "{}", line(remark)).and_then(|()| out.flush());
                }
                (last, heard) = (now, Instant::now());
            }
            Err(why) if heard.elapsed() >= SILENCE_MAX => return Err(died(&last, &why)),
            Err(_) => {}
        }
        match (last.done.take(), last.error.take()) {
            (Some(done), _) => return Ok(done),
            (None, Some(error)) => return Err(error),
            (None, None) => sleep(LOOK_EVERY),
        }
    }
}

fn line(remark: &Remark) -> String {
    let mark = if remark.warning { "! " } else { "" };
    format!("{:>7.0} ms  {mark}{}", remark.ms, remark.text)
}

/// What is said when the process is gone in the middle of it.
fn died(last: &Progress, why: &str) -> String {
    let left = last.said.iter().filter_map(|r| Some(format!("\n  {}: {}", r.text, r.left_behind.as_ref()?)));
    let left: String = left.collect();
    let left =
        if left.is_empty() { "\n  nothing that was seen; its log has all of it".to_owned() } else { left };
    format!(
        "{why}\nIt ended in the middle of the switchover. What may have stayed behind, and what puts it right:{left}"
    )
}

/// Has the process hold the commands of `service` for `span` at most.
///
/// # Errors
/// Why not.
pub fn pause(address: SocketAddr, service: &str, span: Duration) -> Result<String, String> {
    act(address, &format!("/api/pause/{}?ms={}", escaped(service), span.as_millis()))
}

/// Has the process let the commands of `service` go on.
///
/// # Errors
/// It was not paused.
pub fn resume(address: SocketAddr, service: &str) -> Result<String, String> {
    act(address, &format!("/api/resume/{}", escaped(service)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sees_the_process_die_is_told_what_stays_behind() {
        let remark = |text: &str, left: Option<&str>| Remark {
            text: text.into(),
            left_behind: left.map(str::to_owned),
            ..Remark::default()
        };
        let said = vec![
            remark(
                "10.0.0.3:6379: replica-priority 0",
                Some("pointsman switchover cache --restore 10.0.0.3:6379=100"),
            ),
            remark("holding", None),
        ];
        let text = died(&Progress { said, ..Progress::default() }, "nobody answers");
        assert!(text.contains("--restore 10.0.0.3:6379=100") && !text.contains("holding"), "{text}");
        assert!(died(&Progress::default(), "nobody answers").contains("nothing"));
    }
}
