//! moto: Amazon's S3, STS and instance metadata, written in Python.

use std::process::Command;

use super::peers::python_program;
use super::process::ServerProcess;
use super::{Server, proxy};
use crate::cluster_process::free_port;

/// moto looks whether an object is there and puts it, and lets other threads put it in between: of two that put where none
/// is, both may be told that they were first, and what one of them wrote is gone. Amazon's S3 does both in one step.
const SERVER: &str = "
import sys, threading
from moto.s3.responses import S3Response
from moto.server import main
put_object, putting = S3Response.put_object, threading.Lock()
def put_in_one_step(self):
    with putting:
        return put_object(self)
S3Response.put_object = put_in_one_step
main(sys.argv[1:])
";

pub(super) fn start() -> Result<Server, String> {
    let port = free_port();
    python_program("moto_server")?;
    let mut command = Command::new(python_program("python")?);
    command.args(["-c", SERVER, "-H", "127.0.0.1", "-p", &port.to_string()]);
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let process = ServerProcess::start(directory, command)?.until_listening(port)?;
    let address = format!("127.0.0.1:{port}");
    let bucket = proxy::request(&address, "PUT /lake HTTP/1.1", &[]);
    assert!(bucket.starts_with("HTTP/1.1 200"), "{bucket}");
    Ok(Server {
        root: "s3://lake/".to_string(),
        environment: s3_environment(&address),
        address,
        served: None,
        _process: process,
    })
}

/// How a program is told of an S3 store that is not Amazon's.
pub(super) fn s3_environment(address: &str) -> Vec<(&'static str, String)> {
    let endpoint = format!("http://{address}");
    vec![
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_ALLOW_HTTP", "true".to_string()),
        ("AWS_REGION", "us-east-1".to_string()),
        ("AWS_ACCESS_KEY_ID", "GRISTMILLTESTS".to_string()),
        ("AWS_SECRET_ACCESS_KEY", "gristmill-secret".to_string()),
        ("AWS_EC2_METADATA_DISABLED", "true".to_string()),
    ]
}
