//! Azurite: Azure's blob storage in memory, by Microsoft, written in TypeScript.

use std::process::Command;

use super::Server;
use super::peers::{on_path, part};
use super::process::ServerProcess;
use crate::cluster_process::free_port;

/// The emulator's published key, of its published account.
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Makes a container: the request is signed as Azure wants it.
const CONTAINER: &str = r#"
const account = "devstoreaccount1", [, address, container, key] = process.argv;
const headers = {"x-ms-date": new Date().toUTCString(), "x-ms-version": "2021-08-06"};
const lines = Object.entries(headers).map(([name, value]) => `${name}:${value}`);
const text = ["PUT", ...Array(11).fill(""), ...lines, `/${account}/${account}/${container}`, "restype:container"];
const mac = require("crypto").createHmac("sha256", Buffer.from(key, "base64")).update(text.join("\n"), "utf8");
headers["Authorization"] = `SharedKey ${account}:${mac.digest("base64")}`;
fetch(`http://${address}/${account}/${container}?restype=container`, {method: "PUT", headers}).then(async (answer) => {
  if (answer.status !== 201) { console.error(answer.status, await answer.text()); process.exit(1); }
});
"#;

pub(super) fn start() -> Result<Server, String> {
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let (node, modules) = (on_path("node")?, part("node")?.join("node_modules"));
    let mut command = Command::new(&node);
    command.arg(modules.join("azurite/dist/src/blob/main.js"));
    command.args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string(), "--inMemoryPersistence"]);
    command.args(["--silent", "--skipApiVersionCheck", "--disableTelemetry"]);
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let process = ServerProcess::start(directory, command)?.until_listening(port)?;
    let made = Command::new(&node).args(["-e", CONTAINER, &address, "lake", KEY]).output();
    let made = made.map_err(|error| error.to_string())?;
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let environment = vec![
        ("AZURE_STORAGE_ACCOUNT_NAME", "devstoreaccount1".to_string()),
        ("AZURE_STORAGE_ACCOUNT_KEY", KEY.to_string()),
        ("AZURE_STORAGE_ENDPOINT", format!("http://{address}/devstoreaccount1")),
        ("AZURE_ALLOW_HTTP", "true".to_string()),
    ];
    Ok(Server { root: "az://lake/".to_string(), environment, address, served: None, _process: process })
}
