//! A proxy that stands before a store and does to its answers what networks do: seeded, so that a round that went wrong
//! goes wrong again. It also adds latency and counts requests, for benches.
//!
//! It reads whole messages: request from the program, answer from the store, and then decides. Whether a request meets a
//! fault depends on the seed, on what it asks for and on how often it was asked, not on the order of threads.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    /// 503 with `SlowDown`, as S3 says it; the store does not see the request.
    SlowDown,
    /// The connection is reset in the middle of the answer's body.
    Reset,
    /// Nothing for a while, then the connection ends; the store does not see the request.
    Stall,
    /// The connection ends properly, before all bytes that were promised are there.
    Short,
    /// The store did what was asked, and its answer is lost.
    LostAnswer,
}

const FAULTS: [Fault; 5] = [Fault::SlowDown, Fault::Reset, Fault::Stall, Fault::Short, Fault::LostAnswer];

/// What a proxy does.
#[derive(Debug, Clone, Default)]
pub(crate) struct Weather {
    pub(crate) seed: u64,
    /// Of 1,000 requests, this many meet a fault.
    pub(crate) per_mille: u64,
    /// How long a stall lasts.
    pub(crate) stall: Duration,
    /// Added before each answer.
    pub(crate) latency: Duration,
}

/// A request as the proxy saw it: `GET /bucket/key`, and what happened to it.
pub(crate) type Seen = (String, Option<Fault>);

/// A proxy at work until its value goes.
///
/// [`Proxy::refusing`] stands before no store: it answers everything in one way, for what the servers here never say.
pub(crate) struct Proxy {
    address: String,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: String,
    /// What every request is answered with, instead of asking a store.
    refusal: Option<Message>,
    weather: Weather,
    seen: Mutex<Vec<Seen>>,
    times: Mutex<HashMap<String, u64>>,
    stopped: std::sync::atomic::AtomicBool,
}

impl Proxy {
    /// Stands before the store at `upstream` (host and port).
    pub(crate) fn start(upstream: &str, weather: Weather) -> Self {
        Self::begin(upstream, weather, None)
    }

    /// Answers every request with this status line and this body of XML, as a vendor documents it.
    pub(crate) fn refusing(status: &str, body: &str) -> Self {
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\n");
        let refusal = Message { head, body: body.as_bytes().to_vec(), framed: true };
        Self::begin("", Weather::default(), Some(refusal))
    }

    fn begin(upstream: &str, weather: Weather, refusal: Option<Message>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let upstream = upstream.to_string();
        let (seen, times) = (Mutex::default(), Mutex::default());
        let shared = Arc::new(Shared { upstream, refusal, weather, seen, times, stopped: false.into() });
        let work = Arc::clone(&shared);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                if work.stopped.load(std::sync::atomic::Ordering::Relaxed) {
                    return;
                }
                let work = Arc::clone(&work);
                // A connection that breaks is what this is about: its errors are nobody's concern.
                std::thread::spawn(move || drop(work.serve(connection)));
            }
        });
        Proxy { address, shared }
    }

    /// Its host and port.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Every request so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopped.store(true, std::sync::atomic::Ordering::Relaxed);
        // Wakes the listener so that its thread ends.
        let _ = TcpStream::connect(&self.address);
    }
}

impl Shared {
    /// Answers the requests of one connection, one after the other.
    fn serve(&self, client: TcpStream) -> std::io::Result<()> {
        client.set_nodelay(true)?;
        let mut reader = BufReader::new(client.try_clone()?);
        let mut writer = client;
        while let Some(request) = Message::read(&mut reader, false)? {
            let name = request.name();
            if let Some(refusal) = &self.refusal {
                self.seen.lock().unwrap().push((name, None));
                let bodiless = request.head.starts_with("HEAD ");
                let bytes = refusal.bytes();
                let kept = if bodiless { bytes.len() - refusal.body.len() } else { bytes.len() };
                writer.write_all(&bytes[..kept])?;
                continue;
            }
            let fault = self.fault(&name, &request);
            self.seen.lock().unwrap().push((name, fault));
            std::thread::sleep(self.weather.latency);
            match fault {
                None => {
                    let answer = request.answered_by(&self.upstream)?;
                    writer.write_all(&answer.bytes())?;
                    if !answer.framed {
                        return writer.shutdown(Shutdown::Both);
                    }
                }
                Some(Fault::SlowDown) => {
                    let body = "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>";
                    let length = body.len();
                    let head = format!(
                        "HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\n\r\n"
                    );
                    writer.write_all(head.as_bytes())?;
                    writer.write_all(body.as_bytes())?;
                }
                Some(Fault::Stall) => {
                    std::thread::sleep(self.weather.stall);
                    return writer.shutdown(Shutdown::Both);
                }
                Some(Fault::LostAnswer) => {
                    request.answered_by(&self.upstream)?;
                    return reset(&writer);
                }
                Some(fault @ (Fault::Reset | Fault::Short)) => {
                    let answer = request.answered_by(&self.upstream)?;
                    let bytes = answer.bytes();
                    let kept = bytes.len() - answer.body.len().div_ceil(2).min(answer.body.len());
                    // Without a body there is nothing to cut but the head itself.
                    let kept = if answer.body.is_empty() { bytes.len() / 2 } else { kept };
                    writer.write_all(&bytes[..kept])?;
                    writer.flush()?;
                    return if fault == Fault::Reset { reset(&writer) } else { writer.shutdown(Shutdown::Both) };
                }
            }
        }
        Ok(())
    }

    fn fault(&self, name: &str, request: &Message) -> Option<Fault> {
        if self.weather.per_mille == 0 {
            return None;
        }
        let wanted = format!("{name} {}", request.header("range").unwrap_or_default());
        let mut times = self.times.lock().unwrap();
        let time = times.entry(wanted.clone()).or_insert(0);
        *time += 1;
        let mut hash = DefaultHasher::new();
        (self.weather.seed, &wanted, *time).hash(&mut hash);
        let number = hash.finish();
        (number % 1000 < self.weather.per_mille).then(|| FAULTS[(number / 1000 % FAULTS.len() as u64) as usize])
    }
}

/// Ends a connection with a reset instead of an end.
fn reset(connection: &TcpStream) -> std::io::Result<()> {
    socket2::SockRef::from(connection).set_linger(Some(Duration::ZERO))?;
    // The last handle on it goes with the caller; both directions die at once.
    connection.shutdown(Shutdown::Read)
}

/// A request or an answer.
pub(super) struct Message {
    /// First line and headers, each with its line end, without the empty line.
    pub(super) head: String,
    /// As it came: chunked bodies with their chunks.
    pub(super) body: Vec<u8>,
    /// The other side can tell where it ends.
    pub(super) framed: bool,
}

impl Message {
    /// `None` when the connection has ended. `bodiless`: an answer to HEAD, which only speaks of a body.
    pub(super) fn read(from: &mut BufReader<TcpStream>, bodiless: bool) -> std::io::Result<Option<Message>> {
        let mut head = String::new();
        loop {
            let start = head.len();
            if from.read_line(&mut head)? == 0 {
                return Ok(None);
            }
            if head[start..].trim_end().is_empty() {
                head.truncate(start);
                break;
            }
        }
        let mut message = Message { head, body: Vec::new(), framed: true };
        let status = message.head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
        let is_answer = message.head.starts_with("HTTP/");
        if bodiless || matches!(status, Some("204" | "304")) {
            return Ok(Some(message));
        }
        if let Some(length) = message.header("content-length") {
            message.body = vec![0; length.parse().map_err(std::io::Error::other)?];
            from.read_exact(&mut message.body)?;
        } else if message.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            read_chunks(from, &mut message.body)?;
        } else if is_answer {
            from.read_to_end(&mut message.body)?;
            message.framed = false;
        }
        Ok(Some(message))
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut pairs = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        pairs.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// Method and path, without the query.
    fn name(&self) -> String {
        let line = self.head.lines().next().unwrap_or_default();
        line.split(['?', ' ']).take(2).collect::<Vec<_>>().join(" ")
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let kept = |line: &&str| !line.to_lowercase().starts_with("connection:");
        let head: String = self.head.split_inclusive('\n').filter(kept).collect();
        [head.as_bytes(), b"\r\n", &self.body].concat()
    }

    /// The answer of the server at this address.
    pub(super) fn answered_by(&self, address: &str) -> std::io::Result<Message> {
        let mut store = TcpStream::connect(address)?;
        store.set_nodelay(true)?;
        store.write_all(&self.closing_bytes())?;
        let answer = Message::read(&mut BufReader::new(store), self.head.starts_with("HEAD "))?;
        answer.ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
    }

    fn closing_bytes(&self) -> Vec<u8> {
        let (line, rest) = self.head.split_once('\n').unwrap_or_default();
        let kept = |line: &&str| !line.to_lowercase().starts_with("connection:");
        let rest: String = rest.split_inclusive('\n').filter(kept).collect();
        [line.as_bytes(), b"\nConnection: close\r\n", rest.as_bytes(), b"\r\n", &self.body].concat()
    }
}

/// Reads chunks to the last, as they are.
fn read_chunks(from: &mut BufReader<TcpStream>, body: &mut Vec<u8>) -> std::io::Result<()> {
    loop {
        let mut line = Vec::new();
        from.read_until(b'\n', &mut line)?;
        let text = String::from_utf8_lossy(&line);
        let size = usize::from_str_radix(text.trim().split(';').next().unwrap_or_default(), 16);
        let size = size.map_err(std::io::Error::other)?;
        body.extend(&line);
        let mut chunk = vec![0; size + 2];
        from.read_exact(&mut chunk)?;
        body.extend(chunk);
        if size == 0 {
            return Ok(());
        }
    }
}

/// Sends one request and gives the whole answer as text: enough to make a bucket.
pub(crate) fn request(address: &str, first_line: &str, body: &[u8]) -> String {
    let mut store = TcpStream::connect(address).unwrap();
    let length = body.len();
    let head = format!(
        "{first_line}\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n"
    );
    store.write_all(head.as_bytes()).unwrap();
    store.write_all(body).unwrap();
    let mut answer = Vec::new();
    store.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}
