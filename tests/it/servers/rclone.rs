//! `rclone serve`: a directory as S3, WebDAV or plain HTTP.

use std::process::Command;

use super::Server;
use super::moto::s3_environment;
use super::peers::python_program;
use super::process::ServerProcess;
use crate::cluster_process::free_port;

/// S3 with signatures. It takes `If-None-Match` and does not heed it: two creators of one object both succeed.
pub(super) fn s3() -> Result<Server, String> {
    let key = "GRISTMILLTESTS,gristmill-secret";
    let server = serve(&["s3", "--auth-key", key])?;
    Ok(Server { root: "s3://lake/".to_string(), environment: s3_environment(&server.address), ..server })
}

pub(super) fn webdav() -> Result<Server, String> {
    serve(&["webdav", "--dir-cache-time", "100ms"])
}

/// For reading alone: tests put what is to be read into the directory.
pub(super) fn http() -> Result<Server, String> {
    serve(&["http", "--dir-cache-time", "100ms"])
}

fn serve(arguments: &[&str]) -> Result<Server, String> {
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let served = directory.path().join("served");
    std::fs::create_dir_all(served.join("lake")).map_err(|error| error.to_string())?;
    let mut command = Command::new(python_program("rclone")?);
    command.arg("serve").args(arguments).args(["--addr", &address]);
    command.arg("--cache-dir").arg(directory.path().join("cache")).arg("--config").arg("/dev/null").arg(&served);
    let process = ServerProcess::start(directory, command)?.until_listening(port)?;
    let (root, served) = (format!("http://{address}/lake/"), Some(served.join("lake")));
    Ok(Server { root, environment: Vec::new(), address, served, _process: process })
}
