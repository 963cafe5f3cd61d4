//! A page of another origin, in a real browser, cannot give commands to devices; a page of the node's own can.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use testkit::browser::Browser;
use testkit::millstream::Millstream;

/// What an attacker's page would try: as text, as a form, as JSON, by every method that changes something.
const PAGE: &str = r#"<!doctype html><title>waits</title><iframe name=f></iframe>
<form id=form method=post target=f enctype=text/plain action="URL/iot/api/devices/d-1/commands/by-form">
<input name='{"x":"' value='"}'></form>
<script>
const url = 'URL/iot/api/devices/d-1/commands/';
const tries = [
  fetch(url + 'by-text', {method: 'POST', mode: 'no-cors', headers: {'content-type': 'text/plain'}, body: '{}'}),
  fetch(url + 'by-nothing', {method: 'POST', mode: 'no-cors'}),
  fetch(url + 'by-json', {method: 'POST', headers: {'content-type': 'application/json'}, body: '{}'}),
  fetch('URL/iot/api/rules/temperature', {method: 'PUT', headers: {'content-type': 'application/json'}, body: '{"above":1}'}),
  new Promise(done => { document.getElementsByName('f')[0].onload = done; form.submit(); }),
];
Promise.allSettled(tries).then(() => { document.title = 'tried'; });
</script>"#;

/// Serves `page` to whoever asks, for as long as the test runs; where.
fn serve(page: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut request = [0; 4_096];
            let _ = stream.read(&mut request);
            let length = page.len();
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close";
            let _ = write!(stream, "{head}\r\ncontent-length: {length}\r\n\r\n{page}");
        }
    });
    format!("http://{address}/")
}

/// The status line that a request of these lines gets.
fn status_of(node: &Millstream, lines: &str) -> String {
    let address = node.http.strip_prefix("http://").expect("an address");
    let mut stream = TcpStream::connect(address).expect("a connection");
    write!(stream, "{lines}\r\nconnection: close\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn a_page_of_another_origin_gives_no_commands() {
    let node = Millstream::start(&["up", "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    let url = node.http.clone();
    let device = format!("{url}/iot/api/devices/d-1");
    let mut browser = Browser::start(800, 600);

    browser.open(&serve(PAGE.replace("URL", &url)));
    browser.until("document.title == 'tried'");
    let asked = browser
        .requests
        .iter()
        .filter(|asked| asked.contains("/commands/by-"))
        .count();
    assert!(asked >= 3, "the page tried: {:?}", browser.requests);
    assert_eq!(
        node.get("/iot/api/devices/d-1").0,
        404,
        "no command has come"
    );
    let (_, rules) = node.get("/iot/api/rules");
    assert!(!rules.contains("temperature"), "{rules}");

    // A page of the node's own may.
    browser.open(&format!("{url}/dashboard/"));
    browser.value(&format!(
        "void fetch('{device}/commands/own', {{method: 'POST', headers: {{'content-type': 'application/json'}}, body: '{{}}'}})\
         .then(answer => {{ document.title = 'said ' + answer.ok; }})"
    ));
    browser.until("document.title == 'said true'");
    let (code, said) = node.get("/iot/api/devices/d-1");
    assert!(
        code == 200 && said.contains("own") && !said.contains("by-"),
        "{said}"
    );
}

#[test]
fn a_name_that_was_pointed_here_is_not_answered_to() {
    let node = Millstream::start(&["broker", "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    for path in ["/health", "/api/status", "/metrics", "/"] {
        let status = status_of(
            &node,
            &format!("GET {path} HTTP/1.1\r\nhost: evil.example:80"),
        );
        assert!(status.contains(" 421 "), "{path}: {status}");
        let status = status_of(&node, &format!("GET {path} HTTP/1.1\r\nhost: localhost:80"));
        assert!(status.contains(" 200 "), "{path}: {status}");
    }
}
