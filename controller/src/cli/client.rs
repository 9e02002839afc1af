//! The controller's API over HTTP, with errors as sentences.

use std::{
    io::{self, Read},
    path::Path,
    time::Duration,
};

use pistat_protocol::api::Problem;
use pistat_support::file;
use serde::{Serialize, de::DeserializeOwned};
use ureq::{
    Agent, Body,
    http::{Method, Request, Response},
    tls::{RootCerts, TlsConfig},
};

use super::failure::Failure;

/// How long a connection may take: a controller on the same network answers at once or not at all.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take to begin.
const ANSWER: Duration = Duration::from_secs(30);
/// The largest answer that is read: a list of ten thousand machines with all they have is 20 MB.
const MOST_BYTES: u64 = 64 * 1024 * 1024;

/// A connection to one controller, as one account.
pub(super) struct Client {
    agent: Agent,
    url: String,
    token: Option<String>,
    /// Where a token was looked for, for the sentence when it is missing.
    token_source: String,
}

/// Where the controller is, and who asks.
#[derive(Debug, Default)]
pub(super) struct Access<'a> {
    pub(super) url: String,
    pub(super) token: Option<String>,
    pub(super) token_source: String,
    pub(super) ca: Option<&'a Path>,
}

impl Client {
    pub(super) fn new(access: Access<'_>) -> Result<Self, Failure> {
        let url =
            url::Url::parse(&access.url).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if url.is_none() {
            let sentence =
                format!("{:?} is not an address of a controller, such as http://controller:8000", access.url);
            return Err(Failure::Usage(sentence));
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(ANSWER))
            .user_agent(concat!("pistat/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls(access.ca)?)
            .build();
        Ok(Self {
            agent: config.new_agent(),
            url: access.url.trim_end_matches('/').to_owned(),
            token: access.token,
            token_source: access.token_source,
        })
    }

    /// The controller's address without a slash at its end.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The address to be used elsewhere, of which the controller says what it can. A named address
    /// that led there from another machine is better than what a controller behind a proxy or in a
    /// container knows of itself; but it is not an address of a broker.
    pub(super) fn elsewhere<'a>(&'a self, said: &'a str) -> &'a str {
        if is_loopback(&self.url) || !said.starts_with("http") { said } else { &self.url }
    }

    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.json(Method::GET, path, None)
    }

    pub(super) fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        self.json(Method::POST, path, Some(encoded(body)?))
    }

    pub(super) fn patch<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        self.json(Method::PATCH, path, Some(encoded(body)?))
    }

    /// A request whose answer has nothing that is needed.
    pub(super) fn act(&self, method: Method, path: &str) -> Result<(), Failure> {
        let body = (method == Method::POST).then(Vec::new);
        self.send(method, path, body).map(drop)
    }

    /// A request without a body whose answer counts.
    pub(super) fn post_empty<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.json(Method::POST, path, Some(Vec::new()))
    }

    /// A text as it comes.
    pub(super) fn stream(&self, path: &str) -> Result<impl Read + use<>, Failure> {
        let response = self.send(Method::GET, path, None)?;
        Ok(response.into_body().into_with_config().limit(u64::MAX).reader())
    }

    fn json<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<T, Failure> {
        let mut response = self.send(method, path, body)?;
        let answer = response.body_mut().with_config().limit(MOST_BYTES).read_to_vec();
        let answer = answer.map_err(|error| self.unreachable(&error))?;
        serde_json::from_slice(&answer).map_err(|error| {
            Failure::Refused(format!("{} does not answer like a Pi Stat controller ({path}: {error})", self.url))
        })
    }

    fn send(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Response<Body>, Failure> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let malformed = |error| Failure::Usage(format!("The request cannot be made: {error}"));
        let sent = match body {
            Some(body) if body.is_empty() => self.agent.run(request.body(body).map_err(malformed)?),
            Some(body) => {
                self.agent.run(request.header("content-type", "application/json").body(body).map_err(malformed)?)
            }
            None => self.agent.run(request.body(()).map_err(malformed)?),
        };
        let response = sent.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() { Ok(response) } else { Err(self.refusal(response)) }
    }

    fn unreachable(&self, error: &ureq::Error) -> Failure {
        let reason = match error {
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                "nothing listens there".to_owned()
            }
            ureq::Error::HostNotFound => "there is no such host".to_owned(),
            ureq::Error::Timeout(_) => "it does not answer in time".to_owned(),
            other => other.to_string(),
        };
        Failure::Unreachable(format!(
            "No controller at {} ({reason}). Start one with `pistat serve`, or name another with --controller-url",
            self.url
        ))
    }

    fn refusal(&self, mut response: Response<Body>) -> Failure {
        let status = response.status();
        let body = response.body_mut().with_config().limit(64 * 1024).read_to_vec().unwrap_or_default();
        let problem: Option<Problem> = serde_json::from_slice(&body).ok();
        let detail = problem.map(|problem| problem.detail).filter(|detail| !detail.is_empty());
        let sentence = detail.unwrap_or_else(|| format!("{} answered {status}", self.url));
        match status.as_u16() {
            401 if self.token.is_none() => Failure::Denied(format!(
                "A token is needed: give one with --token-file or PISTAT_TOKEN, or run this where the controller's state folder is ({})",
                self.token_source
            )),
            401 | 403 => Failure::Denied(sentence),
            _ => Failure::Refused(sentence),
        }
    }
}

fn is_loopback(url: &str) -> bool {
    let host = url::Url::parse(url).ok().and_then(|url| url.host().map(|host| host.to_owned()));
    match host {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

fn encoded(body: &impl Serialize) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(body).map_err(|error| Failure::Usage(format!("The request cannot be written: {error}")))
}

fn tls(ca: Option<&Path>) -> Result<TlsConfig, Failure> {
    let Some(ca) = ca else { return Ok(TlsConfig::default()) };
    let pem = file::read(ca).map_err(Failure::file(format!("{} cannot be read", ca.display())))?;
    let certificates: Result<Vec<_>, _> = ureq::tls::parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(ureq::tls::PemItem::Certificate(certificate)) => Some(Ok(certificate)),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        })
        .collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => {
            Ok(TlsConfig::builder().root_certs(RootCerts::new_with_certs(&certificates)).build())
        }
        _ => Err(Failure::Usage(format!("{} holds no certificate in PEM", ca.display()))),
    }
}

/// A query's value.
pub(super) fn query(value: &str) -> String {
    percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_address_is_of_use_on_its_own_machine_only() {
        let (lan, broker) = ("http://192.168.1.10:8000", "mqtt://pi-7:PASSWORD@broker.lan:1883");
        for (named, said, told) in [
            ("http://127.0.0.1:8000", lan, lan),
            ("http://localhost:8000/", lan, lan),
            ("http://[::1]:8000", lan, lan),
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000", "http://127.0.0.1:8000"),
            ("https://pis.example.org", "http://127.0.0.1:8000", "https://pis.example.org"),
            ("http://10.0.0.2:8000/", "http://172.17.0.2:8000", "http://10.0.0.2:8000"),
            ("http://10.0.0.2:8000", broker, broker),
        ] {
            let client = Client::new(Access { url: named.into(), ..Access::default() }).unwrap();
            assert_eq!(client.elsewhere(said), told, "{named}");
        }
    }
}
