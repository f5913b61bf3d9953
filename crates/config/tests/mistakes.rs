//! Every mistake gets its place, its cause and its cure, and all of them at once; and no file, however broken, does
//! more than be refused.
use pointsman_config::{Config, Place, load, parse};
use proptest::prelude::*;
use std::path::Path;

const FILE: &str = "p.toml";

fn env(name: &str) -> Option<String> {
    match name {
        "PASSWORD" => Some("hunter2".into()),
        "SENTINELS" => Some("s1:26379, s2:26379,s3:26379,".into()),
        "LANES" => Some("3".into()),
        "YES" => Some("true".into()),
        _ => None,
    }
}

fn right(text: &str) -> Config {
    parse(text, FILE, &env).unwrap_or_else(|errors| panic!("{errors}"))
}

fn mistakes(text: &str) -> Vec<String> {
    let errors = parse(text, FILE, &env).expect_err(text);
    errors.iter().map(ToString::to_string).collect()
}

/// The mistakes of a service of role probes with `lines` more; they begin on line 5.
fn service(lines: &str) -> Vec<String> {
    mistakes(&format!("[[service]]\nname = \"a\"\nlisten = [\"127.0.0.1:1\"]\nnodes = [\"n:1\"]\n{lines}"))
}

const SMALLEST: &str = r#"
[[service]]
name = "cache"
listen = ["0.0.0.0:6379"]
sentinels = ["10.0.0.11:26379", "10.0.0.12:26379", "10.0.0.13:26379"]
master = "mymaster"
"#;

#[test]
fn the_smallest_file_works() {
    let config = right(SMALLEST);
    assert_eq!(&*config.services[0].name, "cache");
    assert_eq!(config.services[0].listen[0].to_string(), "0.0.0.0:6379");
}

#[test]
fn what_is_denied_and_renamed_is_explained() {
    let lines = "deny = [\"keys\", \"ft.drop\"]\nrename = { config = \"adm\", MYGET = \"get\", SET = \"DEL\", DEL = \"SET\" }";
    let text = format!("[[service]]\nname = \"a\"\nlisten = [\"127.0.0.1:1\"]\nnodes = [\"n:1\"]\n{lines}");
    let explained = pointsman_config::explain(&right(&text));
    assert!(explained.contains("denies FT.DROP, KEYS."), "{explained}");
    let renamed = "CONFIG is called ADM, SET is called DEL, MYGET is called GET, DEL is called SET.";
    assert!(explained.contains(renamed), "{explained}");
}

#[test]
fn users_are_explained_by_name_and_their_hashes_are_shown_nowhere() {
    let hash = "2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90";
    let user = format!("client_user = [{{ name = \"web\", passwords = \"#{hash}\" }}]");
    for (lines, expected) in [
        (user.clone(), "clients authenticate to Pointsman, as `web`, and use the nodes without a password."),
        (
            format!("{user}\nupstream_user = \"app\"\nupstream_password = \"x\""),
            "clients authenticate to Pointsman, as `web`, and act as the user `app`.",
        ),
    ] {
        let config = right(&format!(
            "[[service]]\nname = \"a\"\nlisten = [\"127.0.0.1:1\"]\nnodes = [\"n:1\"]\n{lines}"
        ));
        let explained = pointsman_config::explain(&config);
        assert!(explained.contains(expected), "{explained}");
        let shown = format!("{explained}{config:?}");
        assert!(!shown.contains(&hash[..8]) && !shown.contains("43, 216"), "{shown}");
    }
}

#[test]
fn each_mistake_names_its_place_its_cause_and_its_cure() {
    for (lines, expected) in [
        ("lisetn = []", "p.toml:5:1: unknown key \"lisetn\" in [[service]]; did you mean `listen`?"),
        ("level = \"info\"", "p.toml:5:1: unknown key \"level\" in [[service]]; it belongs in [log]"),
        (
            "workers = 1",
            "p.toml:5:1: unknown key \"workers\" in [[service]]; it belongs at the top of the file",
        ),
        (
            "[service.limits]\nfoo = 1",
            "p.toml:6:1: unknown key \"foo\" in [service.limits]; there are bulk, args, inline, depth, stream_from, \
             client_input, client_output_soft, client_output_hard, subscriber_output_hard, subscriber_output_soft, \
             subscriber_output_time, in_flight, upstream_queue, subscriptions, scripts",
        ),
        (
            "hold = \"3\"",
            "p.toml:5:8: `hold` = \"3\" has no unit after 3; write \"auto\" or a duration from 0s to 10m, such as \"20s\"",
        ),
        (
            "hold = 3",
            "p.toml:5:8: `hold` is a number; write \"auto\" or a duration from 0s to 10m, such as \"20s\"",
        ),
        (
            "interval = \"1ms\"",
            "p.toml:5:12: `interval` is \"1ms\", out of range; write a duration from 10ms to 1m, such as \"1s\"",
        ),
        ("lanes = 0", "p.toml:5:9: `lanes` is 0, out of range; write a whole number from 1 to 64, such as 2"),
        (
            "lanes = -1",
            "p.toml:5:9: `lanes` is -1, out of range; write a whole number from 1 to 64, such as 2",
        ),
        ("lanes = \"2\"", "p.toml:5:9: `lanes` is a string; write a whole number from 1 to 64, such as 2"),
        ("hold_reads = \"yes\"", "p.toml:5:14: `hold_reads` is a string; write true or false"),
        (
            "limits.bulk = \"1MB\"",
            "p.toml:5:15: `limits.bulk` = \"1MB\" has the unknown unit \"MB\" (there are B, KiB, MiB and GiB); \
             write a size from 1KiB to 16GiB, such as \"64MiB\"",
        ),
        (
            "limits = { client_output_soft = \"2MiB\", client_output_hard = \"1MiB\" }",
            "p.toml:5:12: `limits.client_output_soft` (2MiB) is larger than `limits.client_output_hard` (1MiB); \
             write `client_output_soft` and `client_output_hard` in that order of size",
        ),
        (
            "limits.subscriber_output_hard = \"1MiB\"",
            "p.toml:5:8: `limits.subscriber_output_soft` (8MiB) is larger than `limits.subscriber_output_hard` (1MiB); \
             write `subscriber_output_soft` and `subscriber_output_hard` in that order of size",
        ),
        (
            "limits.client_input = \"64KiB\"",
            "p.toml:5:8: `limits.stream_from` (1MiB) is larger than `limits.client_input` (64KiB); \
             write `stream_from` and `client_input` in that order of size",
        ),
        (
            "socket_mode = \"0999\"",
            "p.toml:5:15: `socket_mode` \"0999\" is not a mode; \
             write permissions in octal from \"0\" to \"0777\", such as \"0660\"",
        ),
        (
            "allow = [\"config set\"]",
            "p.toml:5:10: \"config set\" is not the name of a command; \
             write a command, or a command and its subcommand: \"CONFIG|SET\"",
        ),
        (
            "allow = [\"client|puase\"]",
            "p.toml:5:10: there is no command \"client|puase\"; did you mean \"CLIENT|PAUSE\"?",
        ),
        (
            "allow = [\"DEBUG\", \"shutdwon\"]",
            "p.toml:5:19: there is no command \"shutdwon\"; did you mean \"SHUTDOWN\"?",
        ),
        (
            "allow = [\"DEBUG\"]\ntransparent = true",
            "p.toml:5:1: `allow` has no meaning with transparent = true, which allows all; keep one of the two",
        ),
        ("deny = [\"KEYZ\"]", "p.toml:5:9: there is no command \"KEYZ\"; did you mean \"KEYS\"?"),
        (
            "allow = [\"DEBUG\"]\ndeny = [\"debug\"]",
            "p.toml:6:9: DEBUG is both allowed and denied; keep one of the two",
        ),
        (
            "rename = [\"CONFIG\"]",
            "p.toml:5:10: `rename` is a list; write a table of strings, such as { CONFIG = \"ADMIN-CONFIG\" }",
        ),
        (
            "rename = { CONFGI = \"x\" }",
            "p.toml:5:12: there is no command \"CONFGI\" or \"X\"; did you mean \"CONFIG\"?",
        ),
        (
            "rename = { CONFIG = \"\" }",
            "p.toml:5:12: CONFIG has no new name; to forbid it write deny = [\"CONFIG\"]",
        ),
        (
            "rename = { CONFIG = \"GET\" }",
            "p.toml:5:12: CONFIG = \"GET\": there is a command of that name; write another name, or rename GET too",
        ),
        (
            "rename = { MYSELECT = \"SELECT\" }",
            "p.toml:5:12: MYSELECT = \"SELECT\": Pointsman itself uses SELECT; let the nodes call it SELECT",
        ),
        (
            "rename = { \"CONFIG|GET\" = \"x\" }",
            "p.toml:5:12: \"CONFIG|GET\" is not the name of a command; \
             write whole commands: 1 to 64 letters, digits, \".\", \"_\" and \"-\"",
        ),
        (
            "rename = { CONFIG = \"x\", DEBUG = \"X\" }",
            "p.toml:5:26: DEBUG = \"X\" is the second of its name; keep one",
        ),
        (
            "master = \"m\"",
            "p.toml:5:1: `master` has a meaning only with `sentinels`; remove it: there is `nodes`",
        ),
        (
            "rise = 2",
            "p.toml:5:1: `rise` has a meaning only with `[[service.node]]`; remove it: there is `nodes`",
        ),
        (
            "sentinels = [\"s:1\"]",
            "p.toml:4:1: `sentinels` and `nodes` both say how the master is known; keep one of the two",
        ),
        ("user = \"u\"", "p.toml:5:8: `user` has no password; add `password` or `password_file`"),
        (
            "password = \"x\"\npassword_file = \"y\"",
            "p.toml:6:1: the secret is given twice: `password` and `password_file`; keep one of the two",
        ),
        (
            "password = \"${NOPE}\"",
            "p.toml:5:12: `password`: the environment variable NOPE is not set; \
             set it, or give a default: \"${NOPE:-…}\"",
        ),
        (
            "password = \"\"",
            "p.toml:5:12: the secret is empty; give a password, or remove the key if there is none",
        ),
        (
            "password_file = \"/nowhere/x\"",
            "p.toml:5:17: `password_file` \"/nowhere/x\" cannot be read: No such file or directory (os error 2); \
             name a file that holds the secret and that this user may read",
        ),
        (
            "[[service.client_user]]\nname = \"a\"",
            "p.toml:5:1: [[service.client_user]] has no `passwords`; \
             add passwords = [\"…\"] with what `printf %s PASSWORD | sha256sum` says, or nopass = true",
        ),
        (
            "[[service.client_user]]\nnopass = true",
            "p.toml:5:1: [[service.client_user]] has no `name`; add name = \"app\"",
        ),
        (
            "[[service.client_user]]\nname = \"a b\"\nnopass = true",
            "p.toml:6:8: \"a b\" cannot be the name of a user; write 1 to 256 bytes without spaces, such as \"app\"",
        ),
        (
            "client_user = [{ name = \"a\", nopass = true }, { name = \"a\", nopass = true }]",
            "p.toml:5:56: there is another user named \"a\"; write all its passwords in one [[service.client_user]]",
        ),
        (
            "[[service.client_user]]\nname = \"a\"\npasswords = [\"hunter2\"]",
            "p.toml:7:14: this entry of `client_user.passwords` is not a SHA-256; \
             write the 64 hexadecimal digits that `printf %s PASSWORD | sha256sum` says",
        ),
        (
            "[[service.client_user]]\nname = \"a\"\npasswords = [\"\"]\nnopass = true",
            "p.toml:8:1: `client_user.nopass` has no meaning with `passwords`; keep one of the two",
        ),
        (
            "[service.client_user]\nname = \"a\"",
            "p.toml:5:1: `client_user` is a table; write [[service.client_user]]",
        ),
        ("client_user = []", "p.toml:5:1: there are 0 users; write 1 to 1024 [[service.client_user]]"),
        ("node = 3", "p.toml:5:8: `node` is a number; write [[service.node]]"),
        ("node = []", "p.toml:5:1: there are 0 nodes; write 1 to 64 [[service.node]]"),
    ] {
        let found = service(lines);
        assert!(found.contains(&expected.into()), "{lines}\n{found:#?}");
    }
}

#[test]
fn each_mistake_of_a_whole_file_is_found() {
    for (text, expected) in [
        ("", "p.toml:1:1: there are 0 services; write 1 to 1024 [[service]]"),
        ("[service]\nname = \"a\"", "p.toml:1:1: `service` is a table; write [[service]]"),
        (
            "[[services]]",
            "p.toml:1:3: unknown key \"services\" at the top of the file; did you mean `service`?",
        ),
        ("[log]\nlevel = \"inof\"", "p.toml:2:9: `log.level` cannot be \"inof\"; did you mean \"info\"?"),
        (
            "admin = \"localhost:1\"",
            "p.toml:1:9: \"localhost:1\" is not an IP address and a port; write \"127.0.0.1:1\", or \"off\"",
        ),
        ("[[service]]", "p.toml:1:1: [[service]] has no `name`; add name = \"cache\""),
        (
            "[[service]]",
            "p.toml:1:1: it is not said how the master is known; \
             add `sentinels` and `master`, or `nodes`, or a `[[service.node]]` for each node",
        ),
        (
            "[[service]]\nmaster = \"m\"",
            "p.toml:2:1: `master` has a meaning only with `sentinels`; add sentinels = [\"10.0.0.11:26379\", …]",
        ),
        (
            "[[service]]\nsentinels = [\"s:1\"]",
            "p.toml:1:1: [[service]] has no `master`; add master = \"mymaster\"",
        ),
        (
            "[[service]]\nsentinels = []",
            "p.toml:2:13: `sentinels` is empty; \
             write a list of strings, such as [\"10.0.0.11:26379\", \"10.0.0.12:26379\", \"10.0.0.13:26379\"]",
        ),
        ("[[service]]\nsentinels = [\"s:1\",\n\"s:1\"]", "p.toml:3:1: \"s:1\" is listed twice; list it once"),
        (
            "[[service]]\nname = \"a b\"",
            "p.toml:2:8: \"a b\" cannot be the name of a service; \
             write 1 to 64 letters, digits, \".\", \"_\" and \"-\"",
        ),
        (
            "[[service]]\n[[service.node]]",
            "p.toml:2:1: [[service.node]] has no `address`; add address = \"10.0.0.1:6379\"",
        ),
        (
            "[[service]]\nfailback_drain = \"1s\"\n[[service.node]]\naddress = \"n:1\"",
            "p.toml:2:1: `failback_drain` has a meaning only with failback = \"drain\"; \
             remove it, or write failback = \"drain\"",
        ),
        (
            "[[service]]\ndurable_listen = [\"127.0.0.1:6380\"]",
            "p.toml:2:1: `durable_listen` has a meaning only with `durable`; remove it, or write durable = 1",
        ),
    ] {
        let found = mistakes(text);
        assert!(found.contains(&expected.into()), "{text}\n{found:#?}");
    }
}

#[test]
fn names_and_listeners_are_given_once() {
    let other = SMALLEST.replace("0.0.0.0", "127.0.0.1");
    let found = mistakes(&format!("admin = \"127.0.0.1:6379\"{SMALLEST}{other}"));
    assert_eq!(
        found,
        [
            "p.toml:4:11: `admin` has \"127.0.0.1:6379\" already; give each listener its own address",
            "p.toml:9:1: there is another service named \"cache\"; give each service its own name",
            "p.toml:10:11: `admin` has \"127.0.0.1:6379\" already; give each listener its own address",
        ]
    );
    let found = service("[[service]]\nname = \"b\"\nlisten = [\"0.0.0.0:1\"]\nnodes = [\"n:1\"]");
    let expected =
        "p.toml:7:11: service \"a\" has \"127.0.0.1:1\" already; give each listener its own address";
    assert_eq!(found, [expected]);
}

#[test]
fn all_mistakes_are_found_at_once_in_the_order_of_the_file() {
    let found =
        mistakes("workers = 9999\n[[service]]\nname = \"\"\nlisten = [\"x\", \"y\"]\nlanes = 0\nfoo = 1\n");
    let lines: Vec<&str> = found.iter().filter_map(|m| m.split(':').nth(1)).collect();
    assert_eq!(lines, ["1", "2", "3", "4", "4", "5", "6"], "{found:#?}");
    let found = service("allow = [1, \"${NOPE}\", \"a|b|c\"]");
    assert_eq!(found.len(), 3, "{found:#?}");
}

#[test]
fn mistakes_of_syntax_are_found_at_once_one_a_line() {
    let found =
        mistakes("workers = = 2\n[[service]]\nname = cache\nlisten = [\"127.0.0.1:1\"\nname = \"b\"\n");
    let places: Vec<&str> = found.iter().filter_map(|m| m.split(' ').next()).collect();
    assert_eq!(places[..2], ["p.toml:1:11:", "p.toml:3:8:"], "{found:#?}");
    assert_eq!(mistakes("workers = 1\nworkers = 2"), ["p.toml:2:1: duplicate key; keep one of the two"]);
}

#[test]
fn columns_count_characters() {
    let found = service("password = \"é\"; ");
    assert!(found[0].starts_with("p.toml:5:15:"), "{found:?}");
    let found = service("limits = { \"é\" = 1 }");
    assert!(found[0].starts_with("p.toml:5:12: unknown key \"é\""), "{found:?}");
}

#[test]
fn values_come_from_the_environment() {
    let config = right(
        "[[service]]\nname = \"a\"\nlisten = \"127.0.0.1:${PORT:-7000}\"\nsentinels = \"${SENTINELS}\"\nmaster = \"m\"\n\
         lanes = \"${LANES}\"\nhold_reads = \"${NO:-false}\"\ntransparent = \"${YES}\"\nhold = \"${HOLD:-3}s\"\n",
    );
    let service = &config.services[0];
    assert_eq!(service.listen[0].to_string(), "127.0.0.1:7000");
    assert_eq!(service.policy.lanes_per_node, 3);
    assert_eq!(service.topology.hold_max, Some(std::time::Duration::from_secs(3)));
    assert!(!service.topology.hold_reads);
    let shown = format!("{:?}", service.topology.source);
    assert_eq!(shown.matches("26379").count(), 3, "{shown}");
}

#[test]
fn a_number_from_the_environment_must_be_one() {
    let found = service("lanes = \"${YES}\"");
    assert!(found[0].starts_with("p.toml:5:9: `lanes` = \"true\" is not a whole number;"), "{found:?}");
}

#[test]
fn backups_come_after_all_others() {
    use pointsman_core::topology::settings::Source;
    let node = |n: u8, backup: bool| format!("[[service.node]]\naddress = \"n{n}:1\"\nbackup = {backup}\n");
    let nodes = [node(1, true), node(2, false), node(3, true), node(4, false)].concat();
    let config = right(&format!("[[service]]\nname = \"a\"\nlisten = [\"127.0.0.1:1\"]\n{nodes}"));
    let service = &config.services[0];
    let Source::Static { nodes, .. } = &service.topology.source else { panic!("a static list") };
    let order: Vec<&str> = nodes.iter().map(|n| &*n.at.host).collect();
    assert_eq!(order, ["n2", "n4", "n1", "n3"]);
    assert!(service.policy.pass_readonly);
}

#[test]
fn secrets_are_read_from_files_and_shown_nowhere() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, text: &[u8]| std::fs::write(folder.path().join(name), text).expect("a file");
    let text = format!(
        "{SMALLEST}user = \"u\"\npassword = \"${{PASSWORD}}\"\nsentinel_password_file = \"s\"\n\
         upstream_password_file = \"{}\"\n",
        folder.path().join("s").display()
    );
    write("p.toml", text.as_bytes());
    for (content, secret) in
        [("hunter2\n", "hunter2"), ("hunter2\r\n", "hunter2"), ("a\nb\n\n", "a\nb\n"), (" x ", " x ")]
    {
        write("s", content.as_bytes());
        let config = load(&folder.path().join("p.toml"), &env).expect("a right file");
        let service = &config.services[0];
        for credential in [&service.topology.sentinel_credential, &service.policy.upstream_user] {
            assert_eq!(&*credential.as_ref().expect("a credential").secret, secret.as_bytes());
        }
        let shown = format!(
            "{config:?}{}{:?}",
            pointsman_config::explain(&config),
            pointsman_config::warnings(&config)
        );
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    for content in [&b""[..], b"\n", &[b'x'; 65 << 10]] {
        write("s", content);
        let errors = load(&folder.path().join("p.toml"), &env).expect_err("a wrong secret");
        assert_eq!(errors.iter().count(), 2, "{errors}");
    }
}

#[test]
fn what_is_no_plain_file_is_no_secret() {
    let found = service("password_file = \"/dev/zero\"");
    assert!(found[0].contains("`password_file` \"/dev/zero\" is not a plain file;"), "{found:?}");
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let error = |path: &Path| load(path, &env).expect_err("an error").to_string();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("p.toml");
    assert!(error(&path).contains("p.toml: cannot be read: No such file or directory"));
    assert!(error(folder.path()).contains("cannot be read: Is a directory"));
    assert!(error(Path::new("/dev/zero")).contains("is longer than 4194304 bytes"));
    std::fs::write(&path, b"workers = 1\n# \xff\n").expect("a file");
    assert!(error(&path).contains("p.toml:2:3: this is not UTF-8; save the file as UTF-8"));
}

/// A right file that uses every kind of value.
const RICH: &str = r#"workers = 2
admin = "127.0.0.1:9400"
[log]
level = "info"
[[service]]
name = "é-less"
listen = ["0.0.0.0:6379", "unix:/run/x.sock"]
sentinels = "${SENTINELS}"
master = "mymaster"
password = "${PASSWORD}"
hold = "1m30s"
hold_reads = true
allow = ["DEBUG", "CLIENT|PAUSE"]
[service.limits]
bulk = "1MiB"
args = 0x10_00
[[service]]
name = "b"
listen = "127.0.0.1:1"
failback = "drain"
[[service.node]]
address = "[::1]:6379"
[[service.node]]
address = "n:6379"
backup = true
"#;

/// Whatever `text` is: it is read, or each mistake has a line and a column within it.
fn read_or_refused_with_a_place(text: &str) -> Result<(), TestCaseError> {
    let Err(errors) = parse(text, FILE, &env) else { return Ok(()) };
    prop_assert!(errors.iter().count() > 0);
    for error in errors.iter() {
        let Place::File { line, column, .. } = &error.place else {
            return Err(TestCaseError::fail(format!("{error} has no place")));
        };
        let columns = text.split('\n').nth(line - 1).map(|l| l.chars().count() + 1);
        prop_assert!(columns.is_some_and(|columns| *column <= columns), "{} is outside", error);
    }
    Ok(())
}

#[test]
fn the_rich_file_is_right_but_for_its_name() {
    right(&RICH.replace('é', "e"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_corruption_of_one_character_is_read_or_refused_with_a_place(
        at in any::<prop::sample::Index>(),
        with in prop_oneof![Just(None), any::<char>().prop_map(Some), "[\\[\\]{}\"'=.,#\\\\\n\r$0-9a-z-]".prop_map(|s| s.chars().next())],
        insert in any::<bool>(),
    ) {
        let mut chars: Vec<char> = RICH.replace('é', "e").chars().collect();
        let i = at.index(chars.len());
        if !insert { chars.remove(i); }
        if let Some(c) = with { chars.insert(i, c); }
        read_or_refused_with_a_place(&String::from_iter(chars))?;
    }

    #[test]
    fn any_cut_and_any_mixture_of_lines_is_read_or_refused_with_a_place(
        end in any::<prop::sample::Index>(),
        lines in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let cut: String = RICH.chars().take(end.index(RICH.chars().count())).collect();
        read_or_refused_with_a_place(&cut)?;
        let all: Vec<&str> = RICH.lines().collect();
        let mixed: Vec<&str> = lines.iter().map(|i| all[i.index(all.len())]).collect();
        read_or_refused_with_a_place(&mixed.join("\n"))?;
    }

    #[test]
    fn any_text_is_read_or_refused_with_a_place(text in any::<String>()) {
        read_or_refused_with_a_place(&text)?;
    }
}
