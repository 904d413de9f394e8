//! Hosts of their own for processes, on one machine: network namespaces on a bridge, whose links can be cut and made slow.
//! They go with the value. Only who may make namespaces can have them.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Tells the values of one process apart.
static MADE: AtomicU32 = AtomicU32::new(0);

/// See the module.
pub(crate) struct Hosts {
    name: String,
    network: String,
    count: usize,
}

impl Hosts {
    /// `Err` says what this machine does not allow.
    pub(crate) fn new(count: usize) -> Result<Self, String> {
        let (process, made) = (std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let name = format!("g{}x{}", process % 100_000, made % 100);
        let network = format!("10.77.{}", (process + 83 * made) % 250);
        let hosts = Hosts { name, network, count };
        let Hosts { name, network, .. } = &hosts;
        order(&format!("ip link add {name} type bridge"))?;
        order(&format!("ip addr add {network}.1/24 dev {name}"))?;
        order(&format!("ip link set {name} up"))?;
        for host in 0..count {
            order(&format!("ip netns add {name}-{host}"))?;
            order(&format!("ip link add {name}v{host} type veth peer name eth0 netns {name}-{host}"))?;
            order(&format!("ip link set {name}v{host} master {name} up"))?;
            order(&format!("ip -n {name}-{host} addr add {}/24 dev eth0", hosts.address(host)))?;
            order(&format!("ip -n {name}-{host} link set eth0 up"))?;
            order(&format!("ip -n {name}-{host} link set lo up"))?;
        }
        Ok(hosts)
    }

    /// Where all of them reach the machine that they are on.
    pub(crate) fn bridge(&self) -> String {
        format!("{}.1", self.network)
    }

    pub(crate) fn address(&self, host: usize) -> String {
        format!("{}.{}", self.network, 10 + host)
    }

    /// This very program, to be started on a host.
    pub(crate) fn program(&self, host: usize) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("{}-{host}", self.name)]).arg(std::env::current_exe().unwrap());
        command
    }

    pub(crate) fn set_link(&self, host: usize, state: &str) {
        order(&format!("ip link set {}v{host} {state}", self.name)).unwrap();
    }

    /// From now on a host's link carries no more than `rate` (as tc writes it, `200mbit`), each way. `Err` says what this
    /// machine does not allow.
    pub(crate) fn limit(&self, host: usize, rate: &str) -> Result<(), String> {
        // A bucket of a few packets: what fits into it passes unlimited.
        let limit = format!("root tbf rate {rate} burst 16kb latency 50ms");
        let name = &self.name;
        order(&format!("tc qdisc add dev {name}v{host} {limit}"))?;
        order(&format!("tc -n {name}-{host} qdisc add dev eth0 {limit}")).map(drop)
    }

    /// How often what goes over a host's link had to wait, one way or the other.
    pub(crate) fn waits(&self, host: usize) -> u64 {
        let name = &self.name;
        let ends =
            [format!("tc -s qdisc show dev {name}v{host}"), format!("tc -n {name}-{host} -s qdisc show dev eth0")];
        ends.iter().map(|end| overlimits(&order(end).unwrap())).sum()
    }
}

/// What tc's statistics of a limit say of how often it was met.
fn overlimits(told: &str) -> u64 {
    let words: Vec<&str> = told.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "overlimits").expect("a limit tells how often it was met");
    words[at + 1].parse().unwrap()
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for host in 0..self.count {
            let _ = order(&format!("ip link del {}v{host}", self.name));
            let _ = order(&format!("ip netns del {}-{host}", self.name));
        }
        let _ = order(&format!("ip link del {}", self.name));
    }
}

/// Runs one command; gives what it says.
fn order(line: &str) -> Result<String, String> {
    let mut words = line.split(' ');
    let output = Command::new(words.next().unwrap_or_default()).args(words).output();
    let output = output.map_err(|error| format!("{line}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("{line}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}
