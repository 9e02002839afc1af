//! The dashboard's files, embedded in the program; a dev build reads them from `web/dist` when they
//! are asked for. Names with a hash are cached for ever; each is sent compressed as it was at build
//! time.

use axum::{
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};

use crate::hub::ask::Refused;

/// What a page may do: nothing but our own files and our own feed, without exception.
/// `web/README.md` has the same line, and the mock sends it.
pub(super) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[cfg(feature = "dashboard")]
mod files {
    /// `web/dist`, as Vite built it.
    #[derive(rust_embed::RustEmbed)]
    #[folder = "../web/dist"]
    pub(super) struct Files;

    pub(super) fn get(path: &str) -> Option<(std::borrow::Cow<'static, [u8]>, String)> {
        let file = <Files as rust_embed::RustEmbed>::get(path)?;
        Some((file.data, pistat_protocol::order::hex(&file.metadata.sha256_hash()[..16])))
    }
}

#[cfg(not(feature = "dashboard"))]
mod files {
    pub(super) fn get(_path: &str) -> Option<(std::borrow::Cow<'static, [u8]>, String)> {
        None
    }
}

/// The content type by a name's ending; what the build makes has no others.
fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, ending)| ending) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("woff2") => "font/woff2",
        Some("webmanifest") => "application/manifest+json",
        Some("json") => "application/json",
        _ => "application/octet-stream",
    }
}

/// Anything that is not a route: a file of the dashboard, or nothing.
pub(super) async fn asset(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let path = match uri.path() {
        "/" => "index.html",
        path => path.trim_start_matches('/'),
    };
    if path.starts_with("api/") || (method != Method::GET && method != Method::HEAD) {
        return Refused::missing(format!("there is no {method} {}", uri.path())).into_response();
    }
    find(path, &headers).unwrap_or_else(|| missing(path).into_response())
}

fn missing(path: &str) -> Refused {
    if path == "index.html" {
        return Refused::missing(
            "this controller has no dashboard: it was built without the feature `dashboard`, or it is a dev build and \
             `npm --prefix web run build` has not been run; the API and MQTT work",
        );
    }
    Refused::missing(format!("there is no /{path}"))
}

fn find(path: &str, headers: &HeaderMap) -> Option<Response> {
    let accepts = |name: &str| {
        let accepted = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
        accepted.split(',').any(|part| part.trim().split(';').next() == Some(name))
    };
    let compressed = [("br", ".br"), ("gzip", ".gz")].into_iter().filter(|(name, _)| accepts(name));
    let mut compressed = compressed.filter_map(|(name, ending)| Some((name, files::get(&format!("{path}{ending}"))?)));
    let (encoding, (data, tag)) = match compressed.next() {
        Some((name, file)) => (Some(name), file),
        None => (None, files::get(path)?),
    };
    let tag = format!("\"{tag}\"");
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|value| value.as_bytes() == tag.as_bytes());
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        axum::body::Body::from(data.into_owned()).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type(path)));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static(if path.starts_with("assets/") {
            "public, max-age=31536000, immutable"
        } else {
            "no-cache"
        }),
    );
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    headers.extend([(header::ETAG, HeaderValue::from_str(&tag).ok()?)]);
    headers.extend(encoding.map(|name| (header::CONTENT_ENCODING, HeaderValue::from_static(name))));
    Some(response)
}
