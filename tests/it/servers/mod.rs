//! Storage servers that nobody here wrote, for tests: each is started on 127.0.0.1 when a test first wants it, serves the
//! whole run, and ends with the test process however that ends. `.ci/peers/install` installs them; where one is missing
//! its tests say so and pass: `skipped: no moto (reason)`.

mod azurite;
pub(crate) mod gcs;
mod gcs_xml;
mod hdfs;
mod moto;
mod peers;
mod process;
pub(crate) mod proxy;
mod rclone;
mod tests;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::program::{Ended, Place, finish};

pub(crate) use peers::{python, python_program};
use process::ServerProcess;
pub(crate) use process::said;

/// A server at work.
pub(crate) struct Server {
    /// Where tests may write: the URL of a bucket, container or directory, which ends in `/`.
    root: String,
    /// What a program needs in its environment to reach it.
    environment: Vec<(&'static str, String)>,
    /// Its host and port, as they stand in the environment.
    address: String,
    /// The directory behind `root`, where a server serves one.
    served: Option<PathBuf>,
    _process: ServerProcess,
}

impl Server {
    /// A place in it that no other test uses; ends in `/`.
    pub(crate) fn fresh(&self) -> String {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        format!("{}test-{}/", self.root, COUNT.fetch_add(1, Ordering::Relaxed))
    }

    /// Host and port.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The directory that it serves, of a server that serves one.
    pub(crate) fn served(&self) -> &Path {
        self.served.as_deref().expect("this kind of server serves a directory")
    }

    /// What a program needs in its environment.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        self.environment.clone()
    }

    /// The same, for a program that goes through something at another address.
    pub(crate) fn environment_through(&self, address: &str) -> Vec<(&'static str, String)> {
        let through = |(key, value): &(&'static str, String)| (*key, value.replace(&self.address, address));
        self.environment.iter().map(through).collect()
    }

    /// The program, with the environment that this server needs.
    pub(crate) fn command(&self, place: &Place, arguments: &[&str]) -> Command {
        let mut command = place.command(arguments);
        command.envs(self.environment());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, place: &Place, arguments: &[&str]) -> Ended {
        finish(&mut self.command(place, arguments))
    }

    /// As [`Server::run`]; panics unless all went well.
    pub(crate) fn ok(&self, place: &Place, arguments: &[&str]) -> Ended {
        let ended = self.run(place, arguments);
        assert_eq!(ended.code, 0, "{arguments:?}\n{}{}", ended.stdout, ended.stderr);
        ended
    }

    /// The rows of a query as CSV without a header.
    pub(crate) fn rows(&self, place: &Place, sql: &str) -> String {
        self.ok(place, &["-q", "--format", "csv", "--no-header", "-c", sql]).stdout
    }
}

/// Every kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// moto: S3, with STS and instance metadata.
    Moto,
    /// `rclone serve s3`, which has no conditional put.
    RcloneS3,
    /// `rclone serve webdav`.
    WebDav,
    /// `rclone serve http`: reading only.
    Http,
    /// fake-gcs-server.
    Gcs,
    /// Azurite.
    Azurite,
    /// A NameNode and a DataNode.
    Hdfs,
}

impl Kind {
    /// The server of this kind, or `None` where it cannot be had: then the reason has been said.
    pub(crate) fn server(self) -> Option<&'static Server> {
        static SERVERS: [OnceLock<Result<Server, String>>; 7] = [const { OnceLock::new() }; 7];
        let started = SERVERS[self as usize].get_or_init(|| match self {
            Kind::Moto => moto::start(),
            Kind::RcloneS3 => rclone::s3(),
            Kind::WebDav => rclone::webdav(),
            Kind::Http => rclone::http(),
            Kind::Gcs => gcs::start(),
            Kind::Azurite => azurite::start(),
            Kind::Hdfs => hdfs::start(),
        });
        match started {
            Ok(server) => Some(server),
            Err(reason) => {
                said(&format!("skipped: no {self:?} ({reason})"));
                None
            }
        }
    }
}
