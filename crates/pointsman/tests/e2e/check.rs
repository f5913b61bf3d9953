//! `pointsman check --probe` says what the users of a service may not do, and changes nothing.
use crate::scene::said;
use pointsman::sandbox::deployment::{Deployment, Options, free_addr};

const WATCHER: &str = "watcher on >pw +ping +role +info";

fn start(options: Options) -> Deployment {
    Deployment::start(Options { nodes: 2, sentinels: 1, quorum: Some(1), ..options }).unwrap()
}

/// The probe of a service with these lines.
fn probe(deployment: &Deployment, lines: &str) -> String {
    let file = deployment.dir().join("probed.toml");
    let (listen, sentinels) = (free_addr().unwrap(), deployment.sentinel_list());
    let master = deployment.master_name();
    let service = format!(
        "[[service]]\nname = \"cache\"\nlisten = \"{listen}\"\nsentinels = \"{sentinels}\"\nmaster = \"{master}\"\n{lines}\n"
    );
    std::fs::write(&file, service).unwrap();
    let (_, text, errors) = said(&["check", "-c", file.to_str().unwrap(), "--probe"]);
    assert!(text.contains("probe of service 'cache'"), "{text}{errors}");
    text
}

#[test]
fn what_the_user_for_observing_may_not_do_is_said_with_what_comes_of_it() {
    let users = [
        WATCHER,
        "guard on >pw resetchannels +ping +role +info +publish +wait",
        "pauses on >pw &* +ping +role +info +publish +wait +client|pause +replicaof +config|set +acl|dryrun",
        "all on >pw ~* &* +@all",
    ];
    let d = start(Options { users: users.map(Into::into).into(), ..Options::default() });
    let as_user =
        |user: &str, more: &str| probe(&d, &format!("user = \"{user}\"\npassword = \"pw\"\n{more}"));
    let both = format!("{}, {}", d.nodes[0].addr(), d.nodes[1].addr());

    let text = as_user("watcher", "");
    for command in ["PUBLISH to pointsman:guard", "WAIT", "CLIENT PAUSE", "REPLICAOF", "CONFIG SET"] {
        let denied = format!("the user for observing ('watcher') may not {command} on {both} (NOPERM");
        assert!(text.contains(&denied), "{command}: {text}");
    }
    assert!(!text.contains("may not INFO") && text.contains("needs over two seconds to notice"), "{text}");
    assert!(text.contains("takes direct writes until the Sentinels tell it"), "{text}");

    let text = as_user("watcher", "guard = false\ndemote = false");
    assert!(!text.contains("may not PUBLISH") && !text.contains("takes direct writes"), "{text}");
    assert!(text.contains("may not REPLICAOF"), "switchovers need it all the same: {text}");

    let text = as_user("guard", "");
    assert!(text.contains("may not PUBLISH to pointsman:guard") && !text.contains("may not WAIT"), "{text}");

    let text = as_user("pauses", "");
    assert!(
        text.contains("may not CLIENT UNPAUSE on") && text.contains("may not CONFIG REWRITE on"),
        "{text}"
    );
    assert!(!text.contains("may not CLIENT PAUSE") && !text.contains("may not REPLICAOF"), "{text}");

    let text = as_user("all", "");
    assert!(!text.contains("may not"), "{text}");
    // Nothing was changed by all that.
    let master = &d.nodes[0];
    assert_eq!(d.master(), Some(0));
    assert_eq!(master.ask(&["SET", "a", "1"]).unwrap().text().as_deref(), Some("OK"));
    let priority = d.nodes[1].ask(&["CONFIG", "GET", "replica-priority"]).unwrap();
    assert_eq!(priority.field("replica-priority").as_deref(), Some("100"));
}

#[test]
fn what_the_user_for_the_sentinels_may_not_do_is_said() {
    let user =
        "user watcher on >pw +ping +sentinel|master +sentinel|get-master-addr-by-name +sentinel|replicas";
    let d = start(Options { sentinel_lines: vec![user.into()], ..Options::default() });
    let text = probe(&d, "sentinel_user = \"watcher\"\nsentinel_password = \"pw\"");
    let sentinel = d.sentinels[0].addr();
    for command in ["SENTINEL FAILOVER", "PSUBSCRIBE"] {
        let denied =
            format!("the user for the Sentinels ('watcher') may not {command} on {sentinel} (NOPERM");
        assert!(text.contains(&denied), "{command}: {text}");
    }
    assert!(!probe(&d, "").contains("may not"));
}

#[test]
fn whether_the_clients_user_is_let_in_is_tried() {
    let users = vec!["app on >pw ~* &* +@all".into()];
    let d = start(Options { users, password: Some("secret".into()), ..Options::default() });
    let with = |lines: &str| probe(&d, &format!("password = \"secret\"\n{lines}"));
    let node = d.nodes[0].addr();
    let own = "[[service.client_user]]\nname = \"web\"\nnopass = true";
    let asks = format!("node {node} asks the clients' user ('default') for a password");
    assert!(with(own).contains(&asks), "{}", with(own));
    let wrong = with(&format!("upstream_user = \"app\"\nupstream_password = \"old\"\n{own}"));
    let refuses =
        format!("node {node} does not let the clients' user ('app') in: refuses the password: WRONGPASS");
    assert!(wrong.contains(&refuses) && !wrong.contains("\"old\""), "{wrong}");
    let right = with(&format!("upstream_user = \"app\"\nupstream_password = \"pw\"\n{own}"));
    assert!(!right.contains("the clients' user"), "{right}");
}

#[test]
fn whether_durable_writes_can_be_waited_for_is_tried_as_the_clients_user() {
    let users = vec!["app on >pw ~* &* +@all -wait".into(), "fine on >pw ~* &* +@all".into()];
    let d = start(Options { users, ..Options::default() });
    let as_user = |user: &str| {
        probe(&d, &format!("durable = 1\nupstream_user = \"{user}\"\nupstream_password = \"pw\""))
    };
    let text = as_user("app");
    assert!(text.contains("the clients' user ('app') may not WAIT on"), "{text}");
    assert!(text.contains("every durable write gets -NOTDURABLE"), "{text}");
    assert!(!as_user("fine").contains("may not"));

    let d = start(Options { password: Some("secret".into()), ..Options::default() });
    let text = probe(&d, "durable = 1\npassword = \"secret\"");
    assert!(text.contains("clients authenticate themselves"), "{text}");
}
