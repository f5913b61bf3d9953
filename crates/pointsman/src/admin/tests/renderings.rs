use super::*;
use crate::admin::report::{Report, not_ready, report};
use crate::admin::statistics::STATISTICS;
use crate::admin::{print, prometheus};
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

fn metrics(sample: Sample) -> String {
    prometheus::render(Arc::new(sample)).expect("a String takes all")
}

/// `{a="b",c="d"}` as pairs, unescaped. Panics on what Prometheus would not read.
fn labels(text: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"").expect("a label has a value");
        assert!(!name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{text}");
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next().expect("a value ends") {
                (_, '\\') => value.push(match chars.next().expect("something is escaped").1 {
                    'n' => '\n',
                    c @ ('\\' | '"') => c,
                    c => panic!("\\{c} is no escape"),
                }),
                (i, '"') => break i + 1,
                (_, c) => {
                    assert_ne!(c, '\n');
                    value.push(c);
                }
            }
        };
        pairs.push((name.to_owned(), value));
        rest = &after[end..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    pairs
}

/// Reads a page as strictly as Prometheus does: metric name and labels to number.
fn parse(page: &str) -> HashMap<(String, Vec<(String, String)>), f64> {
    let body = page.strip_suffix("# EOF\n").expect("the page ends as OpenMetrics wants it");
    let mut series = HashMap::new();
    let mut families = HashSet::new();
    let mut family = (String::new(), String::new());
    for line in body.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let words: Vec<&str> = comment.splitn(3, ' ').collect();
            match words[0] {
                "HELP" => {
                    assert!(families.insert(words[1].to_owned()), "{} comes twice", words[1]);
                    assert!(!words[2].is_empty());
                    family = (words[1].to_owned(), String::new());
                }
                "TYPE" => {
                    assert_eq!(words[1], family.0);
                    family.1 = words[2].to_owned();
                }
                "UNIT" => assert!(words[1] == family.0 && family.0.ends_with(&format!("_{}", words[2]))),
                other => panic!("{other}"),
            }
            continue;
        }
        let (key, number) = line.rsplit_once(' ').expect("a number");
        let (name, rest) = key.split_once('{').unwrap_or((key, "}"));
        let suffix = match family.1.as_str() {
            "counter" => "_total",
            "gauge" => "",
            other => panic!("{other}"),
        };
        assert_eq!(name, format!("{}{suffix}", family.0), "a series stands under its own TYPE");
        let labels = labels(rest.strip_suffix('}').expect("labels end"));
        let number: f64 = number.parse().expect("a number");
        assert!(number.is_finite());
        assert!(series.insert((name.to_owned(), labels), number).is_none(), "{line} comes twice");
    }
    series
}

fn value(page: &str, name: &str, with: &[(&str, &str)]) -> Option<f64> {
    let with: Vec<(String, String)> = with.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    parse(page).get(&(name.to_owned(), with)).copied()
}

#[test]
fn the_metrics_can_be_read_by_prometheus() {
    let series = parse(&metrics(sample()));
    assert!(series.len() > 100, "{}", series.len());
    assert!(series.keys().all(|(name, _)| name.starts_with("pointsman_")));
}

#[test]
fn the_metrics_can_be_read_whatever_nodes_are_called() {
    let mut s = sample();
    let nasty = "a\"b\\c\nd} 1";
    s.services[0].status.nodes[0].at = nasty.into();
    // Two that were announced under one address.
    s.services[0].status.nodes[2].at = s.services[0].status.nodes[1].at.clone();
    let page = metrics(s);
    let labels = [("service", "cache"), ("node", nasty)];
    assert_eq!(value(&page, "pointsman_node_answering", &labels), Some(0.0));
}

#[test]
fn the_metrics_say_what_the_sample_says() {
    let page = metrics(sample());
    let of = |name: &str, labels: &[(&str, &str)]| value(&page, name, labels);
    let cache = ("service", "cache");
    assert_eq!(of("pointsman_state", &[cache, ("state", "holding")]), Some(1.0));
    assert_eq!(of("pointsman_state", &[cache, ("state", "serving")]), Some(0.0));
    assert_eq!(of("pointsman_gate", &[cache, ("gate", "writes"), ("is", "hold")]), Some(1.0));
    assert_eq!(of("pointsman_gate", &[("service", "queue"), ("gate", "reads"), ("is", "open")]), Some(1.0));
    assert_eq!(of("pointsman_holding_seconds", &[cache]), Some(3.2));
    assert_eq!(of("pointsman_term", &[cache]), Some(4.0));
    assert_eq!(of("pointsman_switches_total", &[cache]), Some(3.0));
    assert_eq!(of("pointsman_errors_total", &[cache, ("kind", "uncertain")]), Some(1010.0));
    assert_eq!(of("pointsman_upstream_connections", &[cache, ("class", "pinned")]), Some(1023.0));
    assert_eq!(of("pointsman_commands_per_write", &[cache]), Some(2.0));
    assert_eq!(of("pointsman_sentinels", &[cache]), Some(3.0));
    assert_eq!(of("pointsman_sentinels_answering", &[cache]), Some(2.0));
    assert_eq!(of("pointsman_sentinels", &[("service", "queue")]), None);
    assert_eq!(of("pointsman_node_lag_bytes", &[cache, ("node", "10.0.0.3:6379")]), Some(2560.0));
    assert_eq!(of("pointsman_worker_busy_ratio", &[("worker", "0")]), Some(0.125));
    assert_eq!(of("pointsman_build_info", &[("version", "0.1.0")]), Some(1.0));
    assert_eq!(of("pointsman_uptime_seconds", &[]), Some(100.0));
}

#[test]
fn every_counter_of_the_workers_is_shown() {
    // A field that is added does not compile, or is not found.
    macro_rules! numbers {
        ($($field:ident),*) => {{
            let Counters { $($field),* } = counters();
            vec![$((stringify!($field), $field)),*]
        }};
    }
    let all = numbers!(
        clients_accepted,
        clients_refused,
        clients_overrun,
        clients_cut,
        clients_killed,
        clients_moved,
        clients_now,
        commands,
        writes,
        held,
        held_now,
        resent,
        uncertain,
        withheld,
        durable,
        not_durable,
        waits,
        masterdown,
        refused,
        unauthenticated,
        malformed,
        signs,
        client_bytes_in,
        client_bytes_out,
        up_bytes_in,
        up_bytes_out,
        up_writes,
        ups_opened,
        ups_failed,
        lanes_now,
        pinned_now,
        in_flight_now,
        subscribers_interrupted,
        scripts_reloaded,
        replica_reads
    );
    let series = parse(&metrics(sample()));
    let distinct: HashSet<u64> = all.iter().map(|(_, n)| *n).collect();
    assert_eq!(distinct.len(), all.len());
    for (field, number) in all {
        let shown = series.iter().filter(|((_, l), n)| {
            l[..].contains(&("service".into(), "cache".into())) && **n == number as f64
        });
        assert_eq!(shown.count(), 1, "{field}");
    }
}

#[test]
fn the_table_is_consistent() {
    let (mut names, sample) = (HashSet::new(), sample());
    for statistic in STATISTICS {
        assert!(names.insert(statistic.metric()), "{} comes twice", statistic.name);
        assert!(statistic.name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{}", statistic.name);
        assert!(
            !statistic.name.ends_with("_total") && !statistic.help.contains(['\n', '\\']),
            "{}",
            statistic.name
        );
        assert!(statistic.help.ends_with(['.', '…']), "{}", statistic.name);
        let width = statistic.all_labels().count();
        let series = statistic.series(&sample);
        assert!(!series.is_empty(), "the sample has nothing of {}", statistic.name);
        assert!(series.iter().all(|(labels, _)| labels.len() == width), "{}", statistic.name);
    }
}

#[test]
fn the_status_has_what_it_promises() {
    let json = serde_json::to_value(report(&sample())).expect("JSON");
    let cache = &json["services"][0];
    assert_eq!(json["version"], "0.1.0");
    assert_eq!(json["uptime_s"], 100.0);
    assert_eq!(json["workers"][0]["busy_permille"], 125);
    for (key, value) in [
        ("name", serde_json::json!("cache")),
        ("state", "holding".into()),
        ("term", 4.into()),
        ("master", serde_json::Value::Null),
        ("gates", serde_json::json!({ "writes": "hold", "reads": "hold" })),
        ("guard", serde_json::json!({ "state": "armed", "why": null, "holds": 2 })),
        ("held", 1008.into()),
        ("clients", 1005.into()),
        ("commands", 1006.into()),
        ("switches", 3.into()),
        ("uncertain", 1010.into()),
        ("masterdown", 1011.into()),
        ("listeners", serde_json::json!(["0.0.0.0:6379"])),
        ("problems", serde_json::json!(["the Sentinel 10.0.0.3:26379 does not answer"])),
    ] {
        assert_eq!(cache[key], value, "{key}");
    }
    assert_eq!(cache["sentinels"][2]["problem"], "no answer for 72s");
    assert_eq!(cache["nodes"][2]["lag_bytes"], 2560);
    assert_eq!(cache["statistics"]["errors"]["overrun"], 1003);
    assert_eq!(cache["statistics"]["gate"]["reads"]["hold"], 1);
    assert_eq!(cache["statistics"]["client_received_bytes"], 1015);
    assert_eq!(json["services"][1]["master"], "10.0.0.2:6379");
    assert_eq!(json["statistics"]["reloads"], 2);
}

#[test]
fn the_status_is_read_as_it_was_written_and_also_when_fields_are_missing() {
    let written = report(&sample());
    let json = serde_json::to_string(&written).expect("JSON");
    assert_eq!(serde_json::from_str::<Report>(&json).expect("a report"), written);
    let older = serde_json::from_str::<Report>(r#"{"services":[{"name":"a","later":1}]}"#).expect("a report");
    assert!(print::status(&older, None).contains("\na: "));
}

#[test]
fn a_gate_whose_hold_ran_out_refuses_and_one_whose_lease_ran_out_holds() {
    let mut s = sample();
    let until_now = Gate::Hold { since: ago(9_000), until: at() };
    s.services[0].view = Arc::new(view(until_now, None));
    let mut leased = view(Gate::Open, Some(node_address(2)));
    leased.writes_until = Some(at());
    s.services[1].view = Arc::new(leased);
    let report = report(&s);
    assert_eq!((&*report.services[0].gates.writes, &*report.services[0].gates.reads), ("refuse", "refuse"));
    assert_eq!((&*report.services[1].gates.writes, &*report.services[1].gates.reads), ("hold", "open"));
}

#[test]
fn a_lease_is_told_as_what_is_left_of_it() {
    let lease = |end| {
        let mut s = sample();
        (s.services[1].status.lease, s.services[1].status.lapses) = (Some(end), 3);
        let report = report(&s);
        (report.services[1].lease_s, print::status(&report, None), metrics(s))
    };
    let (left, text, page) = lease(at() + Duration::from_millis(800));
    assert_eq!(left, Some(0.8));
    assert!(text.contains("writes may go on for 0.8s without another word"), "{text}");
    let name = &sample().services[1].status.name;
    assert!(page.contains(&format!("pointsman_lease_seconds{{service=\"{name}\"}} 0.8")), "{page}");
    assert!(page.contains(&format!("pointsman_lease_lapses_total{{service=\"{name}\"}} 3")), "{page}");
    let (left, text, _) = lease(ago(500));
    assert!(left == Some(0.0) && text.contains("over: the Sentinels could have elected"), "{text}");
}

#[test]
fn ready_is_when_every_service_has_an_open_gate() {
    let mut s = sample();
    assert_eq!(not_ready(&s), ["cache: holding: 2 of 3 Sentinels say that 10.0.0.1:6379 is down"]);
    let mut reads = view(Gate::Refuse, Some(node_address(2)));
    reads.reads = Gate::Open;
    s.services[0].view = Arc::new(reads);
    assert_eq!(not_ready(&s), Vec::<String>::new());
    s.services[1].view = Arc::new(view(Gate::Refuse, None));
    assert_eq!(not_ready(&s).len(), 1);
    s.stopping = true;
    assert_eq!(not_ready(&s).len(), 2);
}

#[test]
fn the_status_for_a_person() {
    let mut before = report(&sample());
    before.uptime_s -= 0.5;
    before.services[0].commands -= 600;
    let now = report(&sample());
    let expected = "
pointsman 0.1.0, up 1m 40s, 2 workers (12 %, 0 % busy)

cache: HOLDING for 3.2s, no master (the last term was 4)
  ! the Sentinel 10.0.0.3:26379 does not answer
  why       2 of 3 Sentinels say that 10.0.0.1:6379 is down
  proof     0.2s ago, at config epoch 13, 2 of 3 Sentinels are needed
  gates     writes hold, reads hold
  guard     armed (2 holds since the start)
  hold      for 3.2s already, 11.8s left
  clients   1005, 1008 wait (1007 commands held since the start)
  commands  1200 a second, 1006 since the start
  so far    3 switches, 1010 uncertain, 1011 masterdown, 1009 sent again
  listeners 0.0.0.0:6379

  SENTINEL                     NAMES          EPOCH  SEEN        STAGE  PROBLEM
  10.0.0.1:26379               10.0.0.2:6379  13     0.1s ago    calm
  10.0.0.2:26379               10.0.0.2:6379  13     0.1s ago    calm
  10.0.0.3:26379 (discovered)                        1m 12s ago  calm   no answer for 72s

  NODE           ROLE     OFFSET   LAG      SEEN      PROBLEM
  10.0.0.1:6379  ?                          never     Connection refused
  10.0.0.2:6379  master   5000000           0.1s ago
  10.0.0.3:6379  replica  4997440  2.5 KiB  0.1s ago

queue: SERVING for 3.2s, master 10.0.0.2:6379, term 4
  why       10.0.0.2:6379 is the only node that says master
  proof     0.2s ago
  gates     writes open, reads open
  guard     armed (2 holds since the start)
  lease     writes may go on for 0.7s without another word of the Sentinels
  clients   1005, 1008 wait (1007 commands held since the start)
  commands  0 a second, 1006 since the start
  so far    3 switches, 1010 uncertain, 1011 masterdown, 1009 sent again
  listeners unix:/run/queue.sock

  NODE           ROLE    OFFSET   SEEN
  10.0.0.2:6379  master  5000000  0.1s ago
";
    assert_eq!(format!("\n{}", print::status(&now, Some(&before))), expected);
}

#[test]
fn the_status_names_what_is_wrong_with_the_process() {
    let mut s = sample();
    s.stopping = true;
    s.reload_error = Some("pointsman.toml:4:1: unknown key\nand more".into());
    let text = print::status(&report(&s), None);
    assert!(
        text.contains("\n  ! the newest reload was not taken: pointsman.toml:4:1: unknown key and more\n"),
        "{text}"
    );
    assert!(text.contains("\n  ! it was told to stop"), "{text}");
}

fn page(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference").join(name)
}

/// To write it anew: `POINTSMAN_WRITE_DOCS=1 cargo test -p pointsman --lib reference`.
#[test]
fn the_reference_of_the_metrics_is_in_step() {
    let mut rows = String::from("| metric | type | labels | meaning |\n|---|---|---|---|\n");
    for s in STATISTICS {
        let labels: Vec<String> = s.all_labels().map(|label| format!("`{label}`")).collect();
        let help = s.help.replace('|', "\\|");
        rows += &format!("| `{}` | {} | {} | {help} |\n", s.metric(), s.kind.label(), labels.join(", "));
    }
    let found = std::fs::read_to_string(page("metrics.md")).expect("the page");
    let (begin, end) = ("<!-- table -->\n", "<!-- end -->");
    let at = found.find(begin).expect("the table begins") + begin.len();
    let length = found[at..].find(end).expect("the table ends");
    let mut written = found.clone();
    written.replace_range(at..at + length, &rows);
    if std::env::var_os("POINTSMAN_WRITE_DOCS").is_some() {
        std::fs::write(page("metrics.md"), &written).expect("docs can be written");
    } else {
        assert!(found == written, "docs/reference/metrics.md is not in step with the table: see this test");
    }
    // What people are told to write in their alerts exists.
    let names: HashSet<String> = STATISTICS.iter().map(|s| s.metric()).collect();
    let word = |c: char| !(c.is_ascii_lowercase() || c == '_');
    for name in written.split(word).filter(|w| w.starts_with("pointsman_")) {
        assert!(names.contains(name), "{name} is not a metric");
    }
}

fn keys(value: &serde_json::Value, into: &mut HashSet<String>) {
    match value {
        serde_json::Value::Object(object) => {
            for (key, value) in object.iter().filter(|(key, _)| *key != "statistics") {
                into.insert(key.clone());
                keys(value, into);
            }
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| keys(value, into)),
        _ => {}
    }
}

#[test]
fn the_reference_of_the_status_names_every_key() {
    let text = std::fs::read_to_string(page("admin.md")).expect("the page");
    let mut all = HashSet::new();
    keys(&serde_json::to_value(report(&sample())).expect("JSON"), &mut all);
    assert!(all.len() > 45);
    for key in all {
        assert!(text.contains(&format!("`{key}`")), "docs/reference/admin.md does not explain `{key}`");
    }
}
