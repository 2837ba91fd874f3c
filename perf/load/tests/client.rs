//! The client against good servers and bad ones: it always ends, and says what happened.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::thread;

const BINARY: &str = env!("CARGO_BIN_EXE_tokioloop-load");

/// The reference server on a target of its choice; ends with the test.
struct Limit {
    process: Child,
    target: String,
}

impl Limit {
    fn start(target: &str, prefix: &str) -> Self {
        let mut process = Command::new(BINARY)
            .args(["limit", "--target", target])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let target = match line.split_once("\"port\": ") {
            Some((_, port)) => format!("{prefix}127.0.0.1:{}", port.trim_end_matches("}\n")),
            None => target.to_owned(),
        };
        Self { process, target }
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn client(command: &str, target: &str, options: &[&str]) -> String {
    let output =
        Command::new(BINARY).args([command, "--target", target]).args(options).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Serves each connection with a function, in a thread; gives the target.
fn serve(handle: impl Fn(std::net::TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap().to_string();
    thread::spawn(move || listener.incoming().for_each(|stream| handle(stream.unwrap())));
    target
}

#[track_caller]
fn assert_contains(json: &str, part: &str) {
    assert!(json.contains(part), "{part} is not in {json}");
}

#[test]
fn exactly_the_asked_messages_are_exchanged() {
    let limit = Limit::start("127.0.0.1:0", "");
    for extra in [&[][..], &["--lockstep"][..], &["--spin"][..]] {
        let mut options = vec!["--messages", "1000", "--connections", "7", "--size", "100000"];
        options.extend_from_slice(extra);
        let json = client("client", &limit.target, &options);
        assert_contains(&json, "\"messages\": 1000,");
        assert_contains(&json, "\"errors\": 0, \"stalls\": 0, \"faults\": {}");
    }
}

#[test]
fn a_timed_run_measures_rate_and_the_cpu_time_of_the_server() {
    let limit = Limit::start("127.0.0.1:0", "");
    let pid = limit.process.id().to_string();
    let options = ["--seconds", "0.2", "--warm-up", "0.1", "--server-pid", &pid];
    let json = client("client", &limit.target, &options);
    assert!(!json.contains("\"rps\": 0.0"), "{json}");
    assert_contains(&json, "\"server_cpu\": 0.");
    assert_contains(&json, "\"errors\": 0");
}

#[test]
fn a_run_tells_whether_the_host_left_the_cores_alone() {
    if thread::available_parallelism().unwrap().get() < 2 {
        return; // one core alone has no other to be far from
    }
    let limit = Limit::start("127.0.0.1:0", "");
    let run = ["--core", "0", "--server-core", "1", "--warm-up", "0.01", "--seconds", "0.01"];
    for (pace, undisturbed) in [("0-1e12", true), ("0-0", false)] {
        let json = client("client", &limit.target, &[&run[..], &["--pace", pace]].concat());
        assert_contains(&json, &format!("\"undisturbed\": {undisturbed}"));
    }
}

#[test]
fn datagrams_and_unix_sockets_are_exchanged_too() {
    let udp = Limit::start("udp:127.0.0.1:0", "udp:");
    assert_contains(&client("client", &udp.target, &["--messages", "500"]), "\"messages\": 500,");
    let path = std::env::temp_dir().join(format!("tokioloop-load-{}", std::process::id()));
    let unix = Limit::start(&format!("unix:{}", path.display()), "");
    assert_contains(&client("client", &unix.target, &["--messages", "500"]), "\"messages\": 500,");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn connections_that_come_and_go_leave_no_faults() {
    let limit = Limit::start("127.0.0.1:0", "");
    let json = client("churn", &limit.target, &["--seconds", "0.3", "--connections", "8"]);
    assert!(!json.contains("\"messages\": 0,"), "{json}");
    assert_contains(&json, "\"errors\": 0, \"stalls\": 0");
}

#[test]
fn held_connections_stand_until_standard_input_ends() {
    let limit = Limit::start("127.0.0.1:0", "");
    let json = client("hold", &limit.target, &["--connections", "50"]);
    assert_eq!(json, "{\"connected\": 50}\n");
}

#[test]
fn a_refused_connection_is_reported() {
    let target = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let json = client("client", &target, &["--seconds", "5"]);
    assert_contains(&json, "\"messages\": 0,");
    assert_contains(&json, "connect: ConnectionRefused");
}

#[test]
fn a_silent_server_is_a_stall_and_ends_the_run() {
    let target = serve(std::mem::forget);
    let options = ["--seconds", "60", "--stall", "0.3", "--connections", "3"];
    assert_contains(&client("client", &target, &options), "\"stalls\": 3");
    assert_contains(&client("churn", &target, &options), "\"stalls\": 3");
}

#[test]
fn a_server_that_closes_is_a_fault() {
    let target = serve(|mut stream| {
        stream.read_exact(&mut [0; 10]).unwrap();
    });
    let json = client("client", &target, &["--seconds", "60", "--connections", "4"]);
    assert_contains(&json, "\"errors\": 4");
    assert_contains(&json, "\"messages\": 0,");
}

#[test]
fn a_wrong_echo_is_a_fault() {
    let target = serve(|mut stream| {
        let mut message = [0; 1024];
        stream.read_exact(&mut message).unwrap();
        message[0] ^= 1;
        stream.write_all(&message).unwrap();
        assert_eq!(stream.read(&mut message).unwrap_or(0), 0);
    });
    let json = client("client", &target, &["--seconds", "60", "--connections", "1"]);
    assert_contains(&json, "\"reply differs\": 1");
}

#[test]
fn http_replies_are_counted_and_error_pages_are_not() {
    let target = serve(|mut stream| {
        let mut request = [0; 4096];
        for reply in ["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 500 No\r\n\r\n"] {
            if stream.read(&mut request).unwrap() == 0 {
                return;
            }
            stream.write_all(reply.as_bytes()).unwrap();
        }
        assert_eq!(stream.read(&mut request).unwrap_or(0), 0);
    });
    let json = client("client", &target, &["--http", "/", "--messages", "2", "--connections", "1"]);
    assert_contains(&json, "\"messages\": 1,");
    assert_contains(&json, "\"status 500\": 1");
}

#[test]
fn a_paced_run_sends_at_its_rate() {
    let limit = Limit::start("127.0.0.1:0", "");
    let options = ["--rate", "2000", "--seconds", "0.5", "--warm-up", "0.1", "--size", "100"];
    let json = client("paced", &limit.target, &options);
    let messages: u64 = json.split([' ', ',']).nth(1).unwrap().parse().unwrap();
    // A thousand, but for those that a busy machine answers before or behind the measurement; a
    // client that is not paced has tens of thousands.
    assert!((500..=1200).contains(&messages), "{json}");
    assert_contains(&json, "\"errors\": 0");
}

#[test]
fn a_paced_run_charges_a_pause_to_every_message_that_was_due() {
    let pause = std::time::Duration::from_millis(300);
    let target = serve(move |mut stream| {
        let mut buffer = [0; 65536];
        let mut paused = false;
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            if !std::mem::replace(&mut paused, true) {
                thread::sleep(pause);
            }
            stream.write_all(&buffer[..count]).unwrap();
        }
    });
    let options = ["--rate", "1000", "--seconds", "1", "--warm-up", "0", "--connections", "1"];
    let json = client("paced", &target, &options);
    // Of a thousand messages, three hundred were due in the pause, half of them 150 ms before
    // its end: a closed loop would have counted one.
    let (_, rest) = json.split_once("\"latency_p90\": ").unwrap();
    let p90: f64 = rest.split(',').next().unwrap().parse().unwrap();
    assert!(p90 > 0.1, "{json}");
}

#[test]
fn a_mistyped_option_is_an_error() {
    let output = Command::new(BINARY)
        .args(["client", "--target", "127.0.0.1:1", "--secnods", "1"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("--secnods"));
}
