//! Brokers that are none: the run ends with one clear sentence.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use loadgen::real::RealOptions;
use loadgen::report::Report;

use crate::run::{Setup, run_whole};

/// A server whose connections are all served like this.
fn fake(serve: impl Fn(TcpStream) + Copy + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    address
}

fn until_end(mut stream: TcpStream) {
    let mut bytes = [0; 1_024];
    while let Ok(1..) = stream.read(&mut bytes) {}
}

/// The report of a run that came to nothing, and why.
fn in_vain(address: SocketAddr, why: &str) -> Report {
    let plan = Setup::default().plan();
    let options = RealOptions {
        connect_timeout: Duration::from_millis(300),
        ..RealOptions::new(address, plan.clients())
    };
    let report = run_whole(&plan, options);
    let closed: u64 = report.connects.closed.values().sum();
    assert_eq!(report.connects.closed.get(why), Some(&closed), "{report:?}");
    assert_eq!((closed, report.connects.accepted), (8, 0));
    assert_eq!(
        report.streams[0].counts.sent + report.streams[0].counts.due,
        0
    );
    assert_eq!(
        report.failures,
        [
            format!("no client was accepted (8 tried): {why}"),
            "8 connections were refused or ended by the broker".to_owned(),
        ]
    );
    report
}

#[test]
fn nobody_is_there() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    in_vain(address, "connection refused");
}

#[test]
fn a_web_server_is_no_broker() {
    let address = fake(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        until_end(stream);
    });
    in_vain(address, "the broker sent no MQTT: it speaks HTTP");
}

#[test]
fn one_that_takes_connections_and_never_answers_is_given_up() {
    in_vain(fake(until_end), "no CONNACK in time");
}

#[test]
fn one_that_hangs_up_at_once_is_given_up() {
    let address = fake(|mut stream| {
        let _ = stream.read(&mut [0; 1_024]);
    });
    in_vain(address, "closed by the broker before CONNACK");
}

#[test]
fn one_that_accepts_nobody_says_why() {
    let address = fake(|mut stream| {
        let _ = stream.read(&mut [0; 1_024]);
        let _ = stream.write_all(&[0x20, 3, 0, 0x87, 0]);
        until_end(stream);
    });
    in_vain(address, "refused by the broker: Not authorized");
}
