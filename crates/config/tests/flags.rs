//! Flags alone suffice, and go over a file where they belong to the process.
use pointsman_config::{Config, DEFAULT_PATH, Flags, LogFormat, from_flags, load};
use pointsman_core::policy::Allow;
use pointsman_core::topology::settings::Source;
use std::path::Path;

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

fn with_sentinels() -> Flags {
    Flags {
        listen: strings(&["127.0.0.1:6400"]),
        sentinels: strings(&["127.0.0.1:26379,127.0.0.1:26380", "127.0.0.1:26381"]),
        master: Some("mymaster".into()),
        ..Flags::default()
    }
}

fn with_nodes() -> Flags {
    Flags { listen: strings(&["127.0.0.1:6400"]), nodes: strings(&["a:1", "b:1"]), ..Flags::default() }
}

fn right(flags: &Flags) -> Config {
    from_flags(flags, &|_| None).unwrap_or_else(|errors| panic!("{errors}"))
}

fn wrong(flags: &Flags) -> String {
    from_flags(flags, &|_| None).expect_err("an error").to_string()
}

#[test]
fn sentinels_and_a_master_make_a_service() {
    let config = right(&with_sentinels());
    assert_eq!(&*config.services[0].name, "mymaster");
    let Source::Sentinels { sentinels, master } = &config.services[0].topology.source else { panic!() };
    assert_eq!((sentinels.len(), &**master), (3, "mymaster"));
}

#[test]
fn nodes_make_a_service() {
    let config = right(&with_nodes());
    assert_eq!(&*config.services[0].name, "default");
    let Source::Roles { nodes, .. } = &config.services[0].topology.source else { panic!() };
    assert_eq!(nodes.len(), 2);
}

#[test]
fn a_master_whose_name_no_service_can_have_is_still_asked_for() {
    let config = right(&Flags { master: Some("my/master".into()), ..with_sentinels() });
    assert_eq!(&*config.services[0].name, "default");
}

#[test]
fn the_other_flags_have_their_effect() {
    let config = right(&Flags {
        transparent: true,
        workers: Some("3".into()),
        admin: Some("off".into()),
        log_level: Some("debug".into()),
        log_format: Some("json".into()),
        ..with_nodes()
    });
    assert_eq!(config.services[0].policy.allow, Allow::All);
    assert_eq!((config.workers, config.admin), (3, None));
    assert_eq!((config.log.level, config.log.format), ("debug", LogFormat::Json));
}

#[test]
fn passwords_come_from_variables_as_they_are() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("s");
    std::fs::write(&file, "from a file\n").expect("a file");
    let env = |name: &str| match name {
        "POINTSMAN_USER" => Some("u".into()),
        "POINTSMAN_PASSWORD" => Some("a$${b}".into()),
        "POINTSMAN_SENTINEL_PASSWORD_FILE" => Some(file.display().to_string()),
        _ => None,
    };
    let config = from_flags(&with_sentinels(), &env).expect("right flags");
    let topology = &config.services[0].topology;
    let node = topology.node_credential.as_ref().expect("a credential");
    assert_eq!((node.user.as_deref(), &*node.secret), (Some(&b"u"[..]), &b"a$${b}"[..]));
    assert_eq!(&*topology.sentinel_credential.as_ref().expect("a credential").secret, b"from a file");
}

#[test]
fn a_wrong_flag_is_named() {
    for (flags, expected) in [
        (
            Flags { sentinels: strings(&["s1"]), ..with_sentinels() },
            "--sentinel: \"s1\" is not a host and a port; write \"s1:26379\"",
        ),
        (
            Flags { listen: strings(&[":1"]), ..with_nodes() },
            "--listen: \":1\" is not an IP address and a port; write \"0.0.0.0:1\" for every address of this host",
        ),
        (
            Flags { listen: Vec::new(), ..with_nodes() },
            "--listen: is missing; give it, or a file with `--config`",
        ),
        (
            Flags { master: None, ..with_sentinels() },
            "--master: is missing; give it, or a file with `--config`",
        ),
        (
            Flags { nodes: strings(&["a:1"]), ..with_sentinels() },
            "--node: `--sentinel` and `--node` both say how the master is known; keep one of the two",
        ),
        (
            Flags { nodes: Vec::new(), ..with_nodes() },
            "--sentinel: it is not said how the master is known; add `--sentinel` and `--master`, or `--node`; \
             or describe the service in a file and give that with `--config`",
        ),
        (
            Flags { sentinels: Vec::new(), ..with_sentinels() },
            "--master: `--master` has a meaning only with `--sentinel`; add --sentinel 10.0.0.11:26379,…",
        ),
        (
            Flags { master: Some("m".into()), ..with_nodes() },
            "--master: `--master` has a meaning only with `--sentinel`; remove it: there is `--node`",
        ),
        (
            Flags { workers: Some("many".into()), ..with_nodes() },
            "--workers: `workers` = \"many\" is not a whole number; write a whole number from 0 to 256, such as 2",
        ),
        (
            Flags { log_level: Some("loud".into()), ..with_nodes() },
            "--log-level: `log.level` cannot be \"loud\"; \
             write \"error\", \"warn\", \"info\", \"debug\" or \"trace\"",
        ),
        (
            Flags { config: Some("x".into()), ..with_nodes() },
            "--config: a service is described by flags and by a file; give either `--config` or `--listen`",
        ),
    ] {
        assert_eq!(wrong(&flags), expected);
    }
    let env = |name: &str| (name == "POINTSMAN_USER").then(|| "u".to_string());
    let errors = from_flags(&with_nodes(), &env).expect_err("no password");
    assert_eq!(
        errors.to_string(),
        "POINTSMAN_USER: `POINTSMAN_USER` has no password; add `POINTSMAN_PASSWORD` or `POINTSMAN_PASSWORD_FILE`"
    );
}

#[test]
fn flags_of_the_process_go_over_a_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("p.toml");
    let service = "[[service]]\nname = \"a\"\nlisten = [\"127.0.0.1:1\"]\nnodes = [\"n:1\"]\n";
    std::fs::write(&path, format!("workers = 1\n[log]\nlevel = \"warn\"\n{service}")).expect("a file");
    let file = Flags { config: Some(path.clone()), ..Flags::default() };
    let config = right(&file);
    assert_eq!((config.workers, config.log.level), (1, "warn"));
    let over = Flags { workers: Some("2".into()), log_level: Some("error".into()), ..file };
    let config = right(&over);
    assert_eq!((config.workers, config.log.level), (2, "error"));
    assert!(wrong(&Flags { workers: Some("x".into()), ..over.clone() }).starts_with("--workers: "));
    std::fs::write(&path, format!("log = 3\n{service}")).expect("a file");
    assert!(wrong(&over).contains("p.toml:1:7: `log` is a number; write [log]"));
}

#[test]
fn without_any_flag_the_usual_file_is_read() {
    assert_eq!(from_flags(&Flags::default(), &|_| None), load(Path::new(DEFAULT_PATH), &|_| None));
}
