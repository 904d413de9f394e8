//! The servers themselves: each that can be had starts and answers, and the proxy does to answers what it is told.

use std::process::Command;
use std::time::Duration;

use super::Kind;
use super::proxy::{Fault, Proxy, Weather, request};

#[test]
fn every_server_starts() {
    for (kind, line, expected) in [
        (Kind::Moto, "GET /lake?list-type=2 HTTP/1.1", "<Name>lake</Name>"),
        (Kind::RcloneS3, "GET /lake HTTP/1.1", "<Error>"),
        (Kind::WebDav, "PROPFIND /lake/ HTTP/1.1", "multistatus"),
        (Kind::Http, "GET /lake/ HTTP/1.1", "200 OK"),
        (Kind::Gcs, "GET /storage/v1/b/lake/o HTTP/1.1", "storage#objects"),
        (Kind::Azurite, "GET /devstoreaccount1?comp=list HTTP/1.1", "Azurite-Blob"),
    ] {
        if let Some(server) = kind.server() {
            let answer = request(server.address(), line, &[]);
            assert!(answer.contains(expected), "{kind:?}: {answer}");
        }
    }
    // HDFS has a protocol of its own: that its NameNode has a port, which it writes down when it is ready, is enough here.
    if let Some(server) = Kind::Hdfs.server() {
        assert!(server.fresh().starts_with(&format!("hdfs://{}/lake/", server.address())));
    }
}

/// Reads an object through a proxy that spoils every answer, until each fault has been seen.
#[test]
fn the_proxy_spoils_answers() {
    let Some(server) = Kind::Http.server() else { return };
    std::fs::write(server.served().join("spoilt"), vec![b'x'; 10_000]).unwrap();
    let weather = |per_mille| Weather { seed: 7, per_mille, stall: Duration::from_millis(10), ..Weather::default() };
    let curl = |proxy: &Proxy| {
        let url = format!("http://{}/lake/spoilt", proxy.address());
        Command::new("curl").args(["-s", "-i", &url]).output()
    };
    let fair = Proxy::start(server.address(), weather(0));
    let Ok(whole) = curl(&fair) else { return };
    assert!(whole.status.success() && whole.stdout.ends_with(b"xxxx"), "{whole:?}");

    let foul = Proxy::start(server.address(), weather(1000));
    for _ in 0..40 {
        let answer = curl(&foul).unwrap();
        let (_, fault) = foul.seen().pop().unwrap();
        let text = String::from_utf8_lossy(&answer.stdout).into_owned();
        match fault.expect("every answer is spoilt") {
            Fault::SlowDown => assert!(text.contains("503 Slow Down") && answer.status.success(), "{text}"),
            fault => assert!(!answer.status.success(), "{fault:?}: {text}"),
        }
    }
    let seen: std::collections::HashSet<_> = foul.seen().into_iter().map(|(_, fault)| fault).collect();
    assert_eq!(seen.len(), 5, "{seen:?}");
}
