//! HDFS: Hadoop's own NameNode and a DataNode, in one Java process.

use std::process::Command;

use super::Server;
use super::peers::{on_path, part};
use super::process::ServerProcess;

pub(super) fn start() -> Result<Server, String> {
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let details = directory.path().join("details.json");
    let mut command = Command::new(on_path("java")?);
    // A heap that is enough for a test, and no time spent on optimising code that runs for a minute.
    command.args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
    command.arg("-cp").arg(part("java")?.join("*"));
    command.arg(format!("-Dtest.build.data={}", directory.path().display()));
    command.args(["org.apache.hadoop.test.MiniDFSClusterManager", "-datanodes", "1", "-nnport", "0"]);
    command.args(["-httpport", "0", "-format", "-writeDetails"]).arg(&details);
    let (process, port) = ServerProcess::start(directory, command)?.until(|directory| {
        let text = std::fs::read_to_string(directory.join("details.json")).ok()?;
        serde_json::from_str::<serde_json::Value>(&text).ok()?["namenode_port"].as_u64()
    })?;
    let address = format!("127.0.0.1:{port}");
    Ok(Server {
        root: format!("hdfs://{address}/lake/"),
        environment: Vec::new(),
        address,
        served: None,
        _process: process,
    })
}
