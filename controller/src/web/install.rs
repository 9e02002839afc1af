//! `/install.sh` and `/download/…`, open to everybody, and what the dashboard says of them.

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderValue, header},
    response::Response,
};
use pistat_protocol::api::{AgentProgram, Installation};
use tokio_util::io::ReaderStream;

use super::{Web, problem::Path};
use crate::{
    hub::ask::Refused,
    install::{Architecture, Program},
};

/// `GET /install.sh`.
#[utoipa::path(
    get, path = "/install.sh", operation_id = "installScript", tag = "enrolment",
    responses(
        (status = 200, description = "The script that installs an agent", body = String, content_type = "text/x-shellscript; charset=utf-8"),
    )
)]
pub(super) async fn script(State(web): State<Web>) -> ([(header::HeaderName, &'static str); 1], String) {
    ([(header::CONTENT_TYPE, "text/x-shellscript; charset=utf-8")], web.downloads.script().await.text)
}

/// `GET /api/installation`: what the command has to name. It comes by an authenticated way, so it
/// can vouch for what comes by the open one.
#[utoipa::path(
    get, path = "/api/installation", operation_id = "installation", tag = "enrolment",
    responses((status = 200, description = "What the installing command names", body = Installation))
)]
pub(super) async fn installation(State(web): State<Web>) -> Json<Installation> {
    let script = web.downloads.script().await;
    let agents = Architecture::ALL.map(|architecture| AgentProgram {
        architecture: architecture.name().to_owned(),
        boards: architecture.boards().to_owned(),
        available: script.architectures.contains(&architecture),
    });
    let joining_here = script.architectures.into_iter().filter(|_| web.broker.is_some());
    Json(Installation {
        script_sha256: script.sha256,
        architectures: joining_here.map(|architecture| architecture.name().to_owned()).collect(),
        agents: agents.into(),
        agents_folder: web.downloads.folder().display().to_string(),
        controller_url: web.own_address.elsewhere(),
    })
}

/// `GET /download/{target}`: the agent for a processor, or with `.sha256` behind it the checksum as
/// `sha256sum -c` reads it.
#[utoipa::path(
    get, path = "/download/{target}", operation_id = "download", tag = "enrolment",
    params(("target" = String, Path, description = "A processor; with .sha256 behind it the checksum")),
    responses(
        (status = 200, description = "The agent for a processor, or its checksum", content((Vec<u8> = "application/octet-stream"), (String = "text/plain; charset=utf-8"))),
        (status = 404, description = "There is no agent for it"),
    )
)]
pub(super) async fn download(State(web): State<Web>, Path(target): Path<String>) -> Result<Response, Refused> {
    let (name, is_checksum) = target.strip_suffix(".sha256").map_or((&*target, false), |name| (name, true));
    let architecture: Architecture = name.parse().map_err(Refused::missing)?;
    let program = web.downloads.find(architecture).await.ok_or_else(|| {
        Refused::missing(format!(
            "this controller has no agent for {name}: put one, named pistat-agent-{name}, into the folder that http.downloads names, or into \
             agents/ in the state folder; `packaging/build {name}` makes it"
        ))
    })?;
    if is_checksum { Ok(checksum(&program)) } else { file(&program).await }
}

fn file_name(program: &Program) -> String {
    format!("pistat-agent-{}", program.architecture.name())
}

fn checksum(program: &Program) -> Response {
    let mut response = Response::new(Body::from(format!("{}  {}\n", program.sha256, file_name(program))));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// Sent from the disk as it is read: however many fetch it, it is never in memory as a whole.
async fn file(program: &Program) -> Result<Response, Refused> {
    let unreadable = |error: std::io::Error| Refused::unavailable(format!("the agent cannot be read: {error}"));
    let file = tokio::fs::File::open(&program.path).await.map_err(unreadable)?;
    let length = file.metadata().await.map_err(unreadable)?.len();
    let mut response = Response::new(Body::from_stream(ReaderStream::new(file)));
    let disposition = format!("attachment; filename=\"{}\"", file_name(program));
    let text = |text: &str| HeaderValue::from_str(text).expect("names of processors and hexadecimal digits are ASCII");
    response.headers_mut().extend([
        (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (header::CONTENT_LENGTH, HeaderValue::from(length)),
        (header::CONTENT_DISPOSITION, text(&disposition)),
        (header::ETAG, text(&format!("\"{}\"", program.sha256))),
    ]);
    Ok(response)
}
