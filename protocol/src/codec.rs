//! Decoding of untrusted payloads: size limits first, then JSON, with error messages for the
//! sender.

use serde::de::DeserializeOwned;

use crate::task::{Arguments, MAX_REQUEST_ID_BYTES, Request, RunRequest};

/// The largest payload that any of our topics carries, in bytes; larger ones are refused unread.
///
/// A backfill is the largest: an hour of samples at one a minute with every field is about 60 kB.
pub const MAX_PAYLOAD_BYTES: usize = 256 * 1024;

/// Why a payload was not understood.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// It is too large to be read at all.
    #[error("the payload has {bytes} bytes; at most {MAX_PAYLOAD_BYTES} are read")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// It is not the JSON that this topic carries.
    #[error("the payload is not what this topic carries: {0}")]
    Json(#[from] serde_json::Error),
    /// It is not a request.
    #[error("{0}")]
    Request(String),
}

/// A JSON payload.
///
/// # Errors
/// The payload is too large, or not JSON of this type.
pub fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, DecodeError> {
    check_size(payload)?;
    Ok(serde_json::from_slice(payload)?)
}

/// The JSON of a value of ours.
///
/// # Panics
/// Never: every type of this crate has string keys and serialises without failing.
pub fn encode<T: serde::Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("the protocol's types have string keys only")
}

/// A request over MQTT: a task's id as plain text, or JSON.
///
/// # Errors
/// It is neither; the message says what was expected.
pub fn decode_request(payload: &[u8]) -> Result<Request, DecodeError> {
    check_size(payload)?;
    let text = std::str::from_utf8(payload).map_err(|_| DecodeError::Request("a request is UTF-8 text".into()))?.trim();
    if text.starts_with('{') {
        return decode_json_request(text);
    }
    let task = text.parse().map_err(|error: crate::id::InvalidId| {
        DecodeError::Request(format!(
            "{error}; publish a task's id such as `uptime`, or JSON such as {{\"task\":\"uptime\"}}"
        ))
    })?;
    Ok(Request::Run(RunRequest { task, args: Arguments::new(), request_id: None }))
}

fn decode_json_request(text: &str) -> Result<Request, DecodeError> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Cancel {
        cancel: crate::id::RunId,
    }

    let value: serde_json::Value = serde_json::from_str(text)?;
    if value.get("cancel").is_some() {
        let Cancel { cancel } = serde_json::from_value(value)?;
        return Ok(Request::Cancel(cancel));
    }
    let request: RunRequest = serde_json::from_value(value)?;
    if request.request_id.as_ref().is_some_and(|id| id.is_empty() || id.len() > MAX_REQUEST_ID_BYTES) {
        return Err(DecodeError::Request(format!("a request_id has 1 to {MAX_REQUEST_ID_BYTES} bytes")));
    }
    Ok(Request::Run(request))
}

fn check_size(payload: &[u8]) -> Result<(), DecodeError> {
    if payload.len() > MAX_PAYLOAD_BYTES { Err(DecodeError::TooLarge { bytes: payload.len() }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::ArgumentValue;

    #[test]
    fn requests_are_plain_text_or_json() {
        let Request::Run(plain) = decode_request(b"uptime\n").unwrap() else { panic!("a run") };
        assert_eq!(plain.task.as_str(), "uptime");
        let json = br#"{"task":"service-log","args":{"unit":"ssh","lines":100},"request_id":"a"}"#;
        let Request::Run(json) = decode_request(json).unwrap() else { panic!("a run") };
        assert_eq!(json.args["lines"], ArgumentValue::Integer(100));
        assert_eq!(json.request_id.as_deref(), Some("a"));
        let cancel = br#"{"cancel":"01938f00-0000-7000-8000-000000000000"}"#;
        assert!(matches!(decode_request(cancel).unwrap(), Request::Cancel(_)));
    }

    #[test]
    fn what_is_no_request_is_refused_with_a_sentence() {
        for bad in [
            &b""[..],
            b"rm -rf /",
            b"Uptime",
            b"{}",
            br#"{"task":"uptime","shell":true}"#,
            br#"{"cancel":"x"}"#,
            b"\xff",
            br#"{"cancel":"01938f00-0000-7000-8000-000000000000","task":"uptime"}"#,
            br#"{"task":"uptime","request_id":""}"#,
            br#"{"task":"uptime","args":{"a":[1]}}"#,
        ] {
            let error = decode_request(bad).unwrap_err();
            assert!(!error.to_string().is_empty(), "{bad:?}");
        }
    }

    #[test]
    fn oversize_payloads_are_not_read() {
        assert!(matches!(decode_request(&vec![b' '; MAX_PAYLOAD_BYTES + 1]), Err(DecodeError::TooLarge { .. })));
    }
}
