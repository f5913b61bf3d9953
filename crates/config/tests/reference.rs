//! `docs/reference` says what the code does: the page and the example are made from the table of keys, and each default
//! and each example in that table is tried. To write them anew after a change of the table:
//! `POINTSMAN_WRITE_DOCS=1 cargo test -p pointsman-config --test reference`.
use pointsman_config::keys::{KEYS, Key, Kind, Section, Way};
use pointsman_config::{Config, parse};
use std::fmt::Write;
use std::path::PathBuf;

type Line<'l> = (Section, &'l str, &'l str);

/// The passwords of a user.
const HASHES: &str = "[\"0000000000000000000000000000000000000000000000000000000000000000\"]";

/// A file that holds what every service needs, and `lines` over it.
fn file(way: Way, lines: &[Line<'_>]) -> String {
    let mut all: Vec<Line<'_>> =
        vec![(Section::Service, "name", "\"a\""), (Section::Service, "listen", "[\"127.0.0.1:6400\"]")];
    match way {
        Way::Sentinels => all.extend([
            (Section::Service, "sentinels", "[\"s:26379\"]"),
            (Section::Service, "master", "\"m\""),
        ]),
        Way::Roles => all.push((Section::Service, "nodes", "[\"n:6379\"]")),
        Way::Static => all.push((Section::Node, "address", "\"n:6379\"")),
    }
    if lines.iter().any(|line| line.0 == Section::ClientUser) {
        all.push((Section::ClientUser, "name", "\"u\""));
        if !lines.contains(&(Section::ClientUser, "nopass", "true")) {
            all.push((Section::ClientUser, "passwords", HASHES));
        }
    }
    all.retain(|(section, name, _)| !lines.iter().any(|line| (line.0, line.1) == (*section, *name)));
    all.extend(lines);
    let mut text = String::new();
    for section in Section::ALL {
        let mut keys = all.iter().filter(|line| line.0 == section).peekable();
        if keys.peek().is_some() {
            writeln!(text, "{}", section.header()).expect("a String takes all");
        }
        keys.for_each(|(_, name, value)| writeln!(text, "{name} = {value}").expect("a String takes all"));
    }
    text
}

fn read(text: &str) -> Config {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for key in KEYS.iter().filter(|key| key.kind == Kind::File) {
        std::fs::write(folder.path().join(key.example.trim_matches('"')), "secret\n").expect("a file in it");
    }
    let name = folder.path().join("pointsman.toml");
    parse(text, &name.display().to_string(), &|_| Some("secret".into()))
        .unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

fn way(key: &Key) -> Way {
    if key.section == Section::Node { Way::Static } else { key.only.unwrap_or(Way::Sentinels) }
}

/// What has to be written so that the key has a meaning.
fn companion(key: &Key) -> Option<Line<'static>> {
    let name = match key.name {
        "user" => "password",
        "sentinel_user" => "sentinel_password",
        "upstream_user" => "upstream_password",
        "failback_drain" => return Some((key.section, "failback", "\"drain\"")),
        "durable_timeout" | "durable_listen" => return Some((key.section, "durable", "1")),
        "nopass" => return Some((key.section, "name", "\"v\"")),
        "socket_mode" => return Some((key.section, "listen", "[\"unix:/x\"]")),
        _ => return None,
    };
    Some((key.section, name, "\"secret\""))
}

/// The configuration with `value` for `key`, and without the key.
fn with_and_without(key: &Key, value: &str) -> (Config, Config) {
    let companion = Vec::from_iter(companion(key));
    let with = [companion.clone(), vec![(key.section, key.name, value)]].concat();
    (read(&file(way(key), &with)), read(&file(way(key), &companion)))
}

#[test]
fn every_default_is_what_a_file_without_the_key_gets() {
    for key in KEYS {
        if let Some(default) = key.default {
            let (with, without) = with_and_without(key, default);
            assert_eq!(with, without, "{} = {default}", key.path());
        }
    }
}

#[test]
fn every_key_has_an_effect() {
    for key in KEYS {
        let (with, without) = with_and_without(key, key.example);
        assert_ne!(with, without, "{} = {}", key.path(), key.example);
    }
}

#[test]
fn every_field_of_the_policy_and_of_the_settings_can_be_set() {
    use pointsman_core::policy::{Limits, Policy};
    use pointsman_core::topology::settings::Settings;
    let alone = [
        "password_file",
        "sentinel_password_file",
        "upstream_password_file",
        "allow",
        "transparent",
        "nopass",
    ];
    let keys = KEYS.iter().filter(|key| way(key) == Way::Sentinels && !alone.contains(&key.name));
    let mut lines: Vec<Line<'_>> = keys.map(|key| (key.section, key.name, key.example)).collect();
    lines.push((Section::Service, "transparent", "true"));
    let (base, all) = (read(&file(Way::Sentinels, &[])), read(&file(Way::Sentinels, &lines)));
    // A field that is added to one of the types and cannot be set does not compile, or does not differ.
    macro_rules! differ {
        ($type:ident { $($field:ident),* } but $($fixed:ident),*; $a:expr, $b:expr) => {{
            let ($type { $($field,)* $($fixed: _),* }, other) = ($a, $b);
            $(assert_ne!($field, &other.$field, "{}.{}", stringify!($type), stringify!($field));)*
        }};
    }
    let (base, all) = (&base.services[0], &all.services[0]);
    differ!(Policy { name, lanes_per_node, shared_max, pinned_max, clients_max, client_idle, upstream_idle, connect_timeout,
        retry, durable, tells_writes, upstream_user, users, allow, rules, limits } but id, pass_readonly; &base.policy, &all.policy);
    differ!(Limits { bulk_max, args_max, inline_max, depth_max, stream_from, client_input_max, client_output_soft,
        client_output_hard, subscriber_output_hard, subscriber_output_soft, subscriber_output_time, in_flight_max, ring_max, subs_max, scripts_max } but in_place_from; &base.policy.limits, &all.policy.limits);
    differ!(Settings { name, source, sentinel_credential, node_credential, interval, timeout, hold_max, hold_reads,
        replica_reads, trust, demote, fencing, guard }
        but id; &base.topology, &all.topology);
}

#[test]
fn the_reference_page_has_every_key() {
    let mut page = std::fs::read_to_string(path("configuration.md")).expect("the page");
    for section in Section::ALL {
        let (begin, end) = (format!("<!-- keys of {section:?} -->\n"), "<!-- end -->");
        let at = page.find(&begin).unwrap_or_else(|| panic!("the page has no {begin}")) + begin.len();
        let length = page[at..].find(end).expect("the block ends");
        page.replace_range(at..at + length, &table(section));
    }
    same_or_write("configuration.md", &page);
}

#[test]
fn the_example_has_every_key() {
    same_or_write("pointsman.toml", &example());
}

#[test]
fn the_example_is_right_as_it_is_and_with_every_default_uncommented() {
    let text = std::fs::read_to_string(path("pointsman.toml")).expect("the example");
    let mut uncommented = 0;
    let mut section = Section::Process;
    let mut lines = Vec::new();
    for line in text.lines() {
        let bare = line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line);
        section =
            Section::ALL.into_iter().find(|s| s.header() == bare && !bare.is_empty()).unwrap_or(section);
        let has_default = bare.split_once(" = ").is_some_and(|(name, value)| {
            section.keys().any(|k| k.name == name && k.default == Some(value) && of_the_example(k))
        });
        // A drain time has a meaning only with a drain, and so on: what belongs to another way stays a comment.
        lines.push(if has_default { bare } else { line });
        uncommented += usize::from(has_default);
    }
    assert_eq!(read(&text), read(&lines.join("\n")));
    assert_eq!(uncommented, KEYS.iter().filter(|k| k.default.is_some() && of_the_example(k)).count());
}

#[test]
fn the_toml_on_the_page_is_right() {
    let page = std::fs::read_to_string(path("configuration.md")).expect("the page");
    let blocks: Vec<&str> = page.split("```toml\n").skip(1).filter_map(|b| b.split("```").next()).collect();
    assert_eq!(blocks.len(), 3);
    blocks.into_iter().for_each(|block| drop(read(block)));
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference").join(name)
}

fn same_or_write(name: &str, text: &str) {
    if std::env::var_os("POINTSMAN_WRITE_DOCS").is_some() {
        std::fs::write(path(name), text).expect("docs can be written");
    }
    let found = std::fs::read_to_string(path(name)).expect("the page");
    assert!(
        found == text,
        "docs/reference/{name} is not in step; write it anew as said at the head of this test"
    );
}

fn table(section: Section) -> String {
    let mut text = String::from("| key | value | default | meaning |\n|---|---|---|---|\n");
    for key in section.keys() {
        let default = key.default.map_or("none".into(), |default| format!("`{default}`"));
        let mut meaning = key.doc.replace('|', "\\|");
        if let Some(way) = key.only {
            write!(meaning, " Only with {}.", way.written()).expect("a String takes all");
        }
        if !key.input.is_empty() {
            let what = if key.input.starts_with("--") { "Flag" } else { "Without a file: the variable" };
            write!(meaning, " {what} `{}`.", key.input).expect("a String takes all");
        }
        if !key.reloads {
            meaning += " *Takes a restart.*";
        }
        writeln!(text, "| `{}` | {} | {default} | {meaning} |", key.name, key.kind)
            .expect("a String takes all");
    }
    text
}

/// Whether the example has a section only as a comment.
fn is_example(section: Section) -> bool {
    matches!(section, Section::Node | Section::ClientUser)
}

/// Whether the service of the example can have a key.
fn of_the_example(key: &Key) -> bool {
    way(key) == Way::Sentinels && !is_example(key.section)
}

/// What the example does not leave commented out.
const SMALLEST: [&str; 4] = ["name", "listen", "sentinels", "master"];

fn example() -> String {
    let mut text = String::from(
        "# Every key of Pointsman's configuration. What begins with # and no space is commented out and shows the default,\n\
         # or an example where there is none. docs/reference/configuration.md says more.\n",
    );
    for section in Section::ALL {
        let mark = if is_example(section) { "#" } else { "" };
        if section != Section::Process {
            writeln!(text, "\n{mark}{}", section.header()).expect("a String takes all");
        }
        for key in section.keys() {
            let mark = if SMALLEST.contains(&key.name) && !is_example(section) { "" } else { "#" };
            let value = key.default.unwrap_or(key.example);
            let only = key.only.map_or(String::new(), |way| format!(" Only with {}.", way.written()));
            write!(text, "\n{}", wrapped(&format!("{}{only} ({})", key.doc, key.kind)))
                .expect("a String takes all");
            writeln!(text, "{mark}{} = {value}", key.name).expect("a String takes all");
        }
    }
    text
}

/// `words` as lines of comment.
fn wrapped(words: &str) -> String {
    let (mut text, mut column) = (String::new(), usize::MAX);
    for word in words.split(' ') {
        if column.saturating_add(1 + word.len()) > 110 {
            text += if text.is_empty() { "#" } else { "\n#" };
            column = 1;
        }
        text += " ";
        text += word;
        column += 1 + word.len();
    }
    text + "\n"
}
