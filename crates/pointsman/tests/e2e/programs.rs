//! redis-cli and redis-benchmark see a server.
use crate::harness::{Pair, Proxy, Server};
use pointsman::sandbox::deployment::Options;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};

fn program(name: &str, addr: SocketAddr, args: &[&str], input: &str) -> Output {
    let mut command = Command::new(name);
    command.args(["-h", "127.0.0.1", "-p", &addr.port().to_string()]).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("it ends");
    // One that ends before it has read all is no mistake of ours.
    let _ = writer.join().expect("no panic");
    output
}

#[test]
fn redis_cli_says_the_same() {
    let pair = Pair::start(&Options::default(), &[]);
    let lines = "SET k v\nGET k\nINCR k\nLPUSH l 1 2 3\nLRANGE l 0 -1\nMULTI\nSET k 2\nEXEC\nSELECT 3\nSET k 3\nGET k\n\
                 HELLO 3 SETNAME\nHSET h a 1\nHGETALL h\nCLIENT GETNAME\nEVAL \"return {1,'a'}\" 0\nNOSUCH\nDBSIZE\n";
    let pipe: String = (0..2_000).map(|i| format!("SET pipe:{i} {i}\r\n")).collect();
    for (args, input) in [
        (&[][..], lines),
        (&["-3"], lines),
        (&["-n", "2", "SET", "there", "1"], ""),
        (&["-n", "2", "GET", "there"], ""),
        (&["-n", "99", "GET", "there"], ""),
        (&["--pipe"], &pipe),
        (&["-r", "5", "INCR", "counter"], ""),
        (&["-x", "SET", "from-input"], "some text"),
        (&["GET", "from-input"], ""),
        (&["--no-raw", "KEYS", "from-*"], ""),
        (&["--scan", "--pattern", "from-*"], ""),
        (&["-a", "wrong", "PING"], ""),
    ] {
        let direct = program("redis-cli", pair.bare.addr(), args, input);
        let through = program("redis-cli", pair.proxy.addr(), args, input);
        let text = |o: &Output| {
            format!("{}{}", String::from_utf8_lossy(&o.stdout), String::from_utf8_lossy(&o.stderr))
        };
        // The id is the session's own, and the random part of --pipe's last ECHO shows nowhere.
        assert_eq!(text(&through), text(&direct), "redis-cli {args:?}");
        assert_eq!(through.status, direct.status);
    }
}

#[test]
fn redis_benchmark_runs() {
    let server = Server::start(&Options::default());
    let proxy = Proxy::start(&server, &["--workers", "2"]);
    for args in [
        &["-t", "ping,set,get,incr,lpush,rpush,lpop,rpop,sadd,hset,spop,zadd,zpopmin,lrange_100,mset"][..],
        &["-P", "16", "-t", "set,get", "-r", "1000", "--dbnum", "3"],
        &["-3", "-t", "set,get,hset"],
        &["EVAL", "return redis.call('INCR', KEYS[1])", "1", "counter"],
    ] {
        let all: Vec<&str> = ["-n", "2000", "-c", "20", "-q"].iter().chain(args).copied().collect();
        let output = program("redis-benchmark", proxy.addr(), &all, "");
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && !text.contains("rror"), "redis-benchmark {args:?}: {text}");
        assert!(text.contains("requests per second"), "redis-benchmark {args:?}: {text}");
    }
    assert!(server.count("stats", "total_commands_processed") > 40_000);
}
