//! The story of each switch, with real servers and Sentinels: its time line, what an old master lost, and where it is
//! kept. `cargo test -p pointsman --test e2e story -- --nocapture` prints the stories.
use crate::scene::load::Load;
use crate::scene::{DEADLINE, Proxy, eventually, pointsman, said, until};
use pointsman::events::{Line, Story};
use pointsman::sandbox::deployment::{Deployment, Options, Process};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc::channel;

const WRITERS: usize = 8;
const READERS: usize = 3;

fn start(rest: &str) -> (Deployment, Proxy) {
    let deployment = Deployment::start(Options::default()).unwrap();
    // How long a switch takes is not what is tested here: on a busy machine Sentinels may need long to agree.
    let proxy = Proxy::before_sentinels(&deployment, &format!("hold = \"5m\"\n{rest}"));
    proxy.wait_master(&deployment.nodes[0]);
    (deployment, proxy)
}

fn told(proxy: &Proxy, kind: &str) -> Line {
    until(&format!("a {kind} is told"), || proxy.lines().into_iter().find(|l| l.kind == kind))
}

fn ms(story: &Story, mark: &str) -> f64 {
    let found = story.marks.iter().find(|m| m.mark == mark);
    found.unwrap_or_else(|| panic!("no {mark}: {story:?}")).ms
}

/// The story of the switch from the first node to the one that is master now.
fn switch(deployment: &Deployment, proxy: &Proxy) -> Story {
    let new = proxy.follow(deployment, 0);
    let line = told(proxy, "switch");
    println!("{}", line.text);
    let story = line.story.unwrap();
    let addr = |n: usize| Some(deployment.nodes[n].addr().to_string());
    assert_eq!((&story.from.master, &story.to.master), (&addr(0), &addr(new)), "{story:?}");
    assert_eq!((story.from.term, story.to.term), (1, 2));
    assert!(story.from.epoch.unwrap() < story.to.epoch.unwrap(), "{story:?}");
    story
}

/// That these marks are there, in this order, and that the other figures follow from them.
fn assert_plausible(story: &Story, marks: &[&str]) {
    let times: Vec<f64> = marks.iter().map(|m| ms(story, m)).collect();
    assert!(times.is_sorted() && times[0] == 0.0, "{marks:?}: {times:?}: {story:?}");
    assert!(story.marks.is_sorted_by(|a, b| a.ms <= b.ms), "{story:?}");
    let held = ms(story, "released") - ms(story, "hold");
    // It may have been held more than once.
    assert!(story.held_ms > 0.0 && story.held_ms <= story.marks.last().unwrap().ms, "{held}: {story:?}");
    assert_eq!(story.left_out, 0);
    let selected = story.marks.iter().find(|m| m.mark == "selected").unwrap();
    assert_eq!(Some(&selected.text), story.to.master.as_ref());
    assert!(selected.by.starts_with("Sentinel 127.0.0.1:"), "{story:?}");
}

#[test]
fn an_ordered_switch_is_told_whole_and_so_is_that_nothing_was_lost() {
    let (deployment, proxy) = start("");
    let load = Load::start(proxy.listen, WRITERS, READERS);
    eventually("a Sentinel begins a failover", || deployment.sentinel_failover().is_ok());
    let story = switch(&deployment, &proxy);
    assert_plausible(&story, &["sign", "elected", "selected", "promoted", "proven", "majority"]);
    assert_plausible(&story, &["sign", "hold", "promoted", "fenced", "proven", "released", "majority"]);
    let sign = &story.marks[0];
    assert!(sign.by.starts_with("Sentinel ") || sign.by == "worker", "{story:?}");
    let counts = story.counts.unwrap();
    assert!(counts.held > 0 && counts.uncertain == 0 && counts.masterdown == 0, "{counts:?}");
    load.progress();
    // The Sentinels demote the old master some ten seconds later.
    let lost = told(&proxy, "lost");
    println!("{}", lost.text);
    let lost = lost.lost.unwrap();
    assert_eq!((lost.node, lost.term), (deployment.nodes[0].addr().to_string(), 1));
    // Hellos, pings and the guard's marks: that no client lost anything is what the load says.
    assert!(lost.exact && lost.bytes - lost.after < 300, "{} of {}", lost.after, lost.bytes);
    let (_, page) = crate::scene::get(proxy.admin, "/metrics").unwrap();
    assert!(page.contains("pointsman_last_switch_seconds{service=\"cache\",mark=\"promoted\"} "), "{page}");
    load.finish(&deployment.nodes[deployment.master().unwrap()]).assert_perfect();
}

#[test]
fn after_a_planned_switch_it_is_known_that_nothing_was_lost() {
    let (deployment, proxy) = start("");
    let load = Load::start(proxy.listen, WRITERS, READERS);
    load.progress();
    deployment.wait_settled(DEADLINE).unwrap();
    let (good, out, err) = said(&["switchover", "cache", "--admin", &proxy.admin.to_string()]);
    assert!(good, "{out}{err}");
    let lost = told(&proxy, "lost");
    println!("{}", lost.text);
    let lost = lost.lost.unwrap();
    // At most a ping to replicas, or a hello: usually the old master follows before it is asked again.
    assert!(lost.exact && lost.bytes < 300, "{lost:?}");
    load.finish(&deployment.nodes[proxy.follow(&deployment, 0)]).assert_perfect();
}

#[test]
fn the_death_of_a_master_is_told_whole_followed_and_kept_beyond_the_proxys_own() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.jsonl");
    let events = format!("[events]\nfile = {:?}", file.to_str().unwrap());
    let (deployment, proxy) = start(&events);
    let mut follower = pointsman(&["events", "--follow", "--json", "--admin", &proxy.admin.to_string()]);
    let mut follower = follower.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let load = Load::start(proxy.listen, WRITERS, READERS);
    deployment.nodes[0].kill9();
    let story = switch(&deployment, &proxy);
    assert_plausible(&story, &["sign", "odown", "elected", "selected", "promoted", "proven", "majority"]);
    assert_plausible(&story, &["sign", "hold", "selected", "promoted", "proven", "released", "majority"]);
    // A second without a pong at least, and its death was seen at once.
    assert!(story.held_ms >= 900.0 && ms(&story, "hold") < ms(&story, "odown"), "{story:?}");
    load.progress();
    let tally = load.finish(&deployment.nodes[deployment.master().unwrap()]);
    let counts = story.counts.clone().unwrap();
    assert!(counts.held > 0, "{counts:?}");
    assert_eq!(counts.uncertain, tally.uncertain, "what clients were told of: {counts:?}");

    let line = told(&proxy, "switch");
    let (heard, hear) = channel();
    let listener = std::thread::spawn(move || {
        for text in lines.map_while(Result::ok) {
            let line: Line = serde_json::from_str(&text).unwrap();
            let last = line.kind == "switch";
            heard.send(line).unwrap();
            if last {
                return;
            }
        }
    });
    let followed = until("the switch is followed", || hear.try_iter().find(|l| l.kind == "switch"));
    assert_eq!(followed, line);
    listener.join().unwrap();
    follower.kill().unwrap();
    follower.wait().unwrap();

    eventually("the file has it", || std::fs::read_to_string(&file).unwrap().contains("\"kind\":\"switch\""));
    let before = proxy.lines();
    proxy.signal(rustix::process::Signal::KILL);
    drop(proxy);
    let again = Proxy::before_sentinels(&deployment, &events);
    again.wait_master(&deployment.nodes[deployment.master().unwrap()]);
    let all = again.lines();
    assert_eq!(all[..before.len()], before);
    let new = &all[before.len()..];
    assert!(new.iter().any(|l| l.kind == "grant") && new.iter().all(|l| l.n > line.n), "{new:?}");
}

/// Makes the node deaf for some seconds, after it wrote what no replica gets.
fn write_alone(node: &Process, bytes: usize) {
    let mut client = node.connect().unwrap();
    // One turn of its event loop: the replicas can only come back after it.
    let script = "redis.call('SET', KEYS[1], string.rep('x', tonumber(ARGV[1]))); \
                  local begin = redis.call('TIME')[1]; \
                  while redis.call('TIME')[1] - begin < 4 do end; return 'done'";
    client.send(&["CLIENT", "KILL", "TYPE", "replica"]).unwrap();
    client.send(&["EVAL", script, "1", "alone", &bytes.to_string()]).unwrap();
}

#[test]
fn what_an_old_master_wrote_alone_is_told_when_it_is_back() {
    const ALONE: usize = 5_000;
    let (deployment, proxy) = start("");
    // Votes can be split, and then the Sentinels wait for so long that it hears again.
    let switched = || {
        write_alone(&deployment.nodes[0], ALONE);
        deployment.wait_master(Some(0), std::time::Duration::from_secs(15)).is_ok()
    };
    assert!((0..8).any(|_| switched()), "the Sentinels elected nobody");
    let story = switch(&deployment, &proxy);
    assert_plausible(&story, &["sign", "hold", "selected", "promoted", "proven"]);
    let lost = told(&proxy, "lost");
    println!("{}", lost.text);
    let lost = lost.lost.unwrap();
    assert_eq!((&*lost.node, lost.exact), (&*deployment.nodes[0].addr().to_string(), true));
    assert_eq!(lost.bytes, lost.wrote_to - lost.kept_to);
    // Hellos and pings are among them.
    let (least, most) = (ALONE as u64, ALONE as u64 + 100_000);
    assert!((least..most).contains(&(lost.bytes - lost.after)), "{lost:?}");
}

#[test]
fn a_hold_without_a_switch_is_told_too() {
    // The Sentinels shall not notice.
    let deployment = Deployment::start(Options { down_after_ms: 20_000, ..Options::default() }).unwrap();
    let proxy = Proxy::before_sentinels(&deployment, "");
    let node = &deployment.nodes[0];
    proxy.wait_master(node);
    node.stop();
    proxy.wait_state("holding");
    node.cont();
    proxy.wait_master(node);
    let story = told(&proxy, "held").story.unwrap();
    assert_eq!(story.from, story.to);
    assert!(ms(&story, "hold") <= ms(&story, "released") && story.held_ms > 0.0, "{story:?}");
    assert!(!proxy.lines().iter().any(|l| l.kind == "switch"));
}

#[test]
fn events_are_in_the_state_directory_if_nobody_says_otherwise_and_nowhere_if_that_cannot_be_written() {
    let (_deployment, proxy) = start("");
    let state = proxy.config.with_extension("state").join("events.jsonl");
    eventually("the grant is in the file", || {
        std::fs::read_to_string(&state).is_ok_and(|t| t.contains("\"kind\":\"grant\""))
    });
    let (_deployment, proxy) = start("[events]\nfile = \"/proc/nowhere/events.jsonl\"");
    assert!(!Path::new("/proc/nowhere").exists());
    assert!(proxy.log().contains("events are not kept: /proc/nowhere/events.jsonl"), "{}", proxy.log());
    assert!(proxy.count_events("grant") == 1);
}
