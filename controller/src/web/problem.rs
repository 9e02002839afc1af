//! Errors as problem+json (RFC 9457): a status, a title, and a sentence that a person can act on.

use axum::{
    Json,
    extract::{
        FromRequest, FromRequestParts, WebSocketUpgrade,
        rejection::{BytesRejection, JsonRejection},
        ws::rejection::WebSocketUpgradeRejection,
    },
    http::{HeaderValue, StatusCode, Uri, header, request::Parts},
    response::{IntoResponse, Response},
};
use pistat_protocol::api::Problem;
use serde::de::DeserializeOwned;

use super::{MAX_BODY_BYTES, OPEN_BODY_BYTES};
use crate::hub::ask::{Refused, RefusedKind};

/// An answer that says why there is no other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rejection {
    status: StatusCode,
    detail: String,
}

impl Rejection {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into() }
    }

    fn bad(text: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, plain(text))
    }
}

impl From<Refused> for Rejection {
    fn from(refused: Refused) -> Self {
        let status = match refused.kind {
            RefusedKind::Invalid => StatusCode::BAD_REQUEST,
            RefusedKind::Unauthenticated => StatusCode::UNAUTHORIZED,
            RefusedKind::Forbidden => StatusCode::FORBIDDEN,
            RefusedKind::Missing => StatusCode::NOT_FOUND,
            RefusedKind::Conflict => StatusCode::CONFLICT,
            RefusedKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self { status, detail: refused.detail }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        Rejection::from(self).into_response()
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("error").to_ascii_lowercase();
        let status = self.status.as_u16();
        let problem = Problem { kind: "about:blank".into(), title, status, detail: self.detail };
        let mut response = (self.status, Json(problem)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}

/// A JSON body; one that cannot be read is refused with what is wrong with it.
#[derive(FromRequest)]
#[from_request(via(Json), rejection(Rejection))]
pub(crate) struct Body<T>(pub(crate) T);

impl From<JsonRejection> for Rejection {
    fn from(rejection: JsonRejection) -> Self {
        let status = rejection.status();
        let detail = match rejection {
            JsonRejection::BytesRejection(rejection) => return rejection.into(),
            rejection => plain(&rejection.body_text()),
        };
        Self { status, detail }
    }
}

impl From<BytesRejection> for Rejection {
    fn from(rejection: BytesRejection) -> Self {
        let status = rejection.status();
        let detail = if status == StatusCode::PAYLOAD_TOO_LARGE {
            format!(
                "the body is too large: at most {MAX_BODY_BYTES} bytes are read, and {OPEN_BODY_BYTES} of one without a credential"
            )
        } else {
            plain(&rejection.body_text())
        };
        Self { status, detail }
    }
}

/// What is wrong, without the framework's own words for where.
fn plain(text: &str) -> String {
    let prefixes = [
        ("Failed to deserialize the JSON body into the target type: ", ""),
        ("Failed to parse the request body as JSON: ", "the body is not valid JSON: "),
        ("Failed to deserialize query string: ", ""),
        ("Failed to buffer the request body: ", "the body did not come whole: "),
        ("Invalid URL: ", ""),
    ];
    let known =
        prefixes.iter().find_map(|(theirs, ours)| text.strip_prefix(theirs).map(|rest| format!("{ours}{rest}")));
    known.unwrap_or_else(|| text.into())
}

/// Parts of the path; one that is not an identifier is refused with the rule that it breaks.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Rejection))]
pub(crate) struct Path<T>(pub(crate) T);

impl From<axum::extract::rejection::PathRejection> for Rejection {
    fn from(rejection: axum::extract::rejection::PathRejection) -> Self {
        Self::bad(&rejection.body_text())
    }
}

/// The query; unknown or malformed parameters are refused.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Rejection))]
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned> Query<T> {
    /// The query of an address, as a route gets it.
    pub(crate) fn read(uri: &Uri) -> Result<Self, Rejection> {
        Ok(axum::extract::Query::try_from_uri(uri).map(|query| Self(query.0))?)
    }
}

impl From<axum::extract::rejection::QueryRejection> for Rejection {
    fn from(rejection: axum::extract::rejection::QueryRejection) -> Self {
        Self::bad(&rejection.body_text())
    }
}

/// The handshake of a WebSocket; what is none is refused like everything else.
pub(crate) struct Handshake(pub(crate) WebSocketUpgrade);

impl<S: Send + Sync> FromRequestParts<S> for Handshake {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Rejection> {
        let refused = |rejection: WebSocketUpgradeRejection| Rejection::new(rejection.status(), rejection.body_text());
        WebSocketUpgrade::from_request_parts(parts, state).await.map(Self).map_err(refused)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use pistat_protocol::api::Login;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Limited {
        #[expect(dead_code, reason = "it is only read")]
        limit: u8,
    }

    async fn refusal<T: DeserializeOwned + std::fmt::Debug>(body: impl Into<axum::body::Body>) -> (u16, String) {
        let request = Request::post("/").header(header::CONTENT_TYPE, "application/json").body(body.into()).unwrap();
        match Body::<T>::from_request(request, &()).await {
            Err(Rejection { status, detail }) => (status.as_u16(), detail),
            Ok(Body(value)) => panic!("{value:?} was read"),
        }
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_told_in_our_own_words() {
        for (body, status, detail) in [
            ("{", 400, "the body is not valid JSON: EOF"),
            ("{\"limit\":1,\"x\":2}", 422, "x: unknown field `x`, expected `limit`"),
            ("{\"limit\":300}", 422, "limit: invalid value"),
        ] {
            let told = refusal::<Limited>(body).await;
            assert!(told.0 == status && told.1.starts_with(detail), "{body}: {told:?}");
        }
        assert!(refusal::<Login>("{}").await.1.starts_with("either {\"code\""));
        let (status, detail) = refusal::<Limited>(vec![b' '; 3_000_000]).await;
        assert!(status == 413 && detail.contains(&MAX_BODY_BYTES.to_string()), "{detail}");
        let Err(refused) = Query::<Limited>::read(&"/?limit=-1".parse().unwrap()) else { panic!("-1 was read") };
        assert!(
            refused.status == StatusCode::BAD_REQUEST && refused.detail.starts_with("limit: "),
            "{}",
            refused.detail
        );
    }
}
