//! From which pages the controller may be used: its own. Checked in one place for every route,
//! before anything else is done with a request.
//!
//! A browser sends a session's cookie wherever the host name fits, whatever port the page came
//! from, so the cookie alone does not
//! tell whose page asks. `Origin` (RFC 6454) and `Sec-Fetch-Site` (W3C Fetch Metadata) do, and no
//! page can forge them. Programs send
//! neither, and are not affected.

use std::sync::Arc;

use axum::{
    extract::Request,
    http::{HeaderMap, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use url::Url;

use crate::hub::ask::Refused;

/// The header by which a browser says how the page and the address that it asks are related.
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// The controller's own origins: the one of the request's `Host`, and that of `http.public_url`.
#[derive(Clone)]
pub(super) struct Origins {
    public_url: Option<Arc<Url>>,
}

/// Lets a request through unless it changes something or opens a connection, and comes from another
/// origin.
pub(super) async fn check(origins: Origins, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE);
    let refused = match (reads, headers.contains_key(header::UPGRADE)) {
        (true, false) => None,
        // A WebSocket of a browser always has an Origin; browsers have disagreed on the other
        // header there.
        (true, true) => origins.foreign_origin(headers),
        (false, _) => origins.foreign_origin(headers).or_else(|| origins.foreign_site(headers)),
    };
    match refused {
        None => next.run(request).await,
        Some(refused) => refused.into_response(),
    }
}

impl Origins {
    /// Of a controller with this `http.public_url`.
    pub(super) fn new(public_url: Option<&str>) -> Self {
        Self { public_url: public_url.and_then(|url| Url::parse(url).ok()).map(Arc::new) }
    }

    /// Why a request is refused for its `Origin`, if it is.
    fn foreign_origin(&self, headers: &HeaderMap) -> Option<Refused> {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let origin = origins.next()?.to_str().unwrap_or_default();
        let is_own = origins.next().is_none() && self.is_own(origin, host(headers));
        (!is_own).then(|| self.refused(&format!("from {origin:?}"), headers))
    }

    /// Why a request is refused for its `Sec-Fetch-Site`, if it is.
    fn foreign_site(&self, headers: &HeaderMap) -> Option<Refused> {
        // "none" is the user's own doing, such as a form that is sent again.
        let mut site = headers.get_all(SEC_FETCH_SITE).iter().map(|site| site.to_str().unwrap_or_default());
        let foreign = site.find(|site| !matches!(*site, "same-origin" | "none"))?;
        Some(self.refused(&format!("from another origin (Sec-Fetch-Site: {foreign})"), headers))
    }

    /// Whether an origin is that of `public_url` or of the host that was asked; a default port and
    /// the case of letters do not count.
    fn is_own(&self, origin: &str, host: Option<&str>) -> bool {
        // An origin is a scheme, a host and a port (RFC 6454, section 6.2). The parser of URLs
        // takes more than that and drops it, so that another's text would become ours.
        let is_bare = |rest: &str| !rest.contains(|c: char| matches!(c, '/' | '\\' | '?' | '#' | '@') || c <= ' ');
        if !origin.split_once("://").is_some_and(|(_, rest)| is_bare(rest)) {
            return false;
        }
        let Ok(origin) = Url::parse(origin) else { return false };
        if !matches!(origin.scheme(), "http" | "https") {
            return false;
        }
        // The host says nothing of the scheme: behind a proxy it is not the one that the controller
        // speaks.
        let asked = host.and_then(|host| Url::parse(&format!("{}://{host}", origin.scheme())).ok());
        let mut own = asked.iter().chain(self.public_url.as_deref());
        own.any(|own| own.origin() == origin.origin())
    }

    fn refused(&self, from: &str, headers: &HeaderMap) -> Refused {
        let host = host(headers).map_or_else(
            || "that of the Host header, which this request lacks".to_owned(),
            |host| format!("http(s)://{host}, by the Host header"),
        );
        let public_url = self.public_url.as_deref().map_or_else(
            || "http.public_url is not set".to_owned(),
            |url| format!("or {}, by http.public_url", url.origin().ascii_serialization()),
        );
        Refused::forbidden(format!(
            "this request comes {from}, and only pages of the controller's own origin may use it: expected was {host}; {public_url}. \
             Open the dashboard by one of these addresses; behind a reverse proxy let it pass the Host header on, or set \
             http.public_url to the address in the browser"
        ))
    }
}

/// The host that was asked, with its port unless it is the default one.
fn host(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::HOST)?.to_str().ok().filter(|host| !host.is_empty())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    /// The headers of a request; an empty text leaves one out.
    fn headers(host: &str, origin: &str, site: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [("host", host), ("origin", origin), (SEC_FETCH_SITE, site)] {
            if !value.is_empty() {
                headers.insert(name, HeaderValue::from_str(value).unwrap());
            }
        }
        headers
    }

    fn is_refused(public_url: &str, host: &str, origin: &str, site: &str) -> bool {
        let public_url = Some(public_url).filter(|url| !url.is_empty());
        let (origins, headers) = (Origins::new(public_url), headers(host, origin, site));
        origins.foreign_origin(&headers).is_some() || origins.foreign_site(&headers).is_some()
    }

    #[test]
    fn an_origin_is_ours_if_it_is_the_host_or_the_public_url_default_port_and_case_aside() {
        let public = "https://pis.example.org";
        for (public_url, host, origin) in [
            ("", "pi:8000", "http://pi:8000"),
            ("", "pi:8000", "https://pi:8000"),
            ("", "pi", "http://pi"),
            ("", "pi:80", "http://pi"),
            ("", "pi:443", "https://pi"),
            ("", "PI.Local:8000", "http://pi.local:8000"),
            ("", "[fd00::1]:8000", "http://[fd00::1]:8000"),
            (public, "127.0.0.1:8000", public),
            (public, "", public),
            (public, "pis.example.org:443", public),
            ("https://pis.example.org:443/pistat", "backend", public),
            ("https://PIS.example.org", "backend", public),
            (public, "pi:8000", "http://pi:8000"),
        ] {
            assert!(!is_refused(public_url, host, origin, ""), "{public_url} {host} {origin}");
            assert!(!is_refused(public_url, host, origin, "same-origin"), "{public_url} {host} {origin}");
        }
    }

    #[test]
    fn another_origin_port_or_site_is_refused() {
        let public = "https://pis.example.org";
        for (public_url, host, origin, site) in [
            ("", "pi:8000", "http://pi:8001", ""),
            ("", "pi:8000", "http://pi", ""),
            ("", "pi:80", "https://pi", ""),
            ("", "pi:8000", "http://evil.pi:8000", ""),
            ("", "pi:8000", "http://pi:8000.evil.example", ""),
            ("", "pi:8000", "null", ""),
            ("", "pi:8000", "file://", ""),
            ("", "pi:8000", "ftp://pi:8000", ""),
            ("", "pi:8000", "pi:8000", ""),
            ("", "", "http://pi:8000", ""),
            ("", "pi:8000", "http://pi:8000", "cross-site"),
            ("", "pi:8000", "http://evil@pi:8000", ""),
            ("", "pi:8000", "http://evil.example:80@pi:8000", ""),
            ("", "pi:8000", "http://pi:8000/", ""),
            ("", "pi:8000", "http://pi:8000/evil", ""),
            ("", "pi:8000", "http://pi:8000?evil", ""),
            ("", "pi:8000", "http://pi:8000#evil", ""),
            ("", "pi:8000", "http:\\\\pi:8000", ""),
            ("", "pi:8000", "http:pi:8000", ""),
            ("", "pi:8000", "http://pi:80\t00", ""),
            ("", "pi:8000", " http://pi:8000 ", ""),
            (public, "pi:8000", "https://pis.example.org/", ""),
            ("", "pi:8000", "", "same-site"),
            ("", "pi:8000", "", "cross-site"),
            ("", "pi:8000", "", "anything"),
            (public, "127.0.0.1:8000", "https://evil.example", ""),
            (public, "127.0.0.1:8000", "https://pis.example.org.evil.example", ""),
            (public, "127.0.0.1:8000", "http://pis.example.org", ""),
            (public, "127.0.0.1:8000", "https://pis.example.org:8443", ""),
        ] {
            assert!(is_refused(public_url, host, origin, site), "{public_url} {host} {origin} {site}");
        }
        let mut twice = headers("pi:8000", "http://pi:8000", "");
        twice.append("origin", HeaderValue::from_static("http://evil.example"));
        assert!(Origins::new(None).foreign_origin(&twice).is_some(), "one origin of two is another's");
    }

    #[test]
    fn programs_send_neither_header_and_are_let_through() {
        assert!(!is_refused("", "pi:8000", "", "") && !is_refused("", "", "", "") && !is_refused("", "pi", "", "none"));
    }

    #[test]
    fn a_refusal_names_both_origins_and_what_to_configure() {
        let refused = |public_url: Option<&str>, host| {
            Origins::new(public_url).foreign_origin(&headers(host, "https://evil.example", "")).unwrap().detail
        };
        let text = refused(Some("https://pis.example.org/a"), "127.0.0.1:8000");
        for words in ["\"https://evil.example\"", "http(s)://127.0.0.1:8000", "https://pis.example.org,", "Host"] {
            assert!(text.contains(words), "{words}: {text}");
        }
        let text = refused(None, "");
        assert!(text.contains("lacks") && text.contains("http.public_url is not set"), "{text}");
    }
}
