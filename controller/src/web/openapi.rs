//! The description of the API (OpenAPI 3.1), made from the handlers: what is routed is described,
//! and the other way round, since both are one table.
//!
//! A handler tells what it answers when all is well and what only it refuses; what every route of
//! its kind may answer is added here.

use axum::body::Bytes;
use pistat_protocol::api::{Problem, SESSION_KEY_HEADER};
use utoipa::{
    OpenApi,
    openapi::{
        Components, ContentBuilder, Ref, RefOr, Response, ResponseBuilder,
        path::Operation,
        schema::ComponentsBuilder,
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};

use super::Needs;

/// The description, as it is sent.
#[derive(Clone)]
pub(super) struct Description(pub(super) Bytes);

#[derive(OpenApi)]
#[openapi(
    info(title = "Pi Stat", description = "Errors are problem+json (RFC 9457). Times are RFC 3339 in UTC. Unknown fields and parameters are refused."),
    components(schemas(Problem)),
    tags(
        (name = "machines", description = "The fleet"),
        (name = "history", description = "What machines measured, for years"),
        (name = "tasks", description = "What may run"),
        (name = "runs", description = "What ran, and what it printed"),
        (name = "controller", description = "The controller itself"),
        (name = "accounts", description = "Who may do what"),
        (name = "enrolment", description = "How machines join"),
        (name = "connections", description = "What becomes a WebSocket"),
    )
)]
struct Base;

/// The whole description, of the routes by what they need.
pub(super) fn description(tables: impl IntoIterator<Item = (Needs, utoipa::openapi::OpenApi)>) -> Description {
    let mut whole = Base::openapi();
    for (needs, mut table) in tables {
        operations(&mut table).for_each(|operation| complete(operation, needs));
        whole.merge(table);
    }
    let components = whole.components.get_or_insert_with(Components::default);
    *components = with_security(std::mem::take(components));
    let none = [""; 0];
    let both = SecurityRequirement::new("session", none).add("sessionKey", none);
    whole.security = Some(vec![SecurityRequirement::new("token", none), both]);
    Description(whole.to_json().expect("a description has only texts for keys").into())
}

fn operations(api: &mut utoipa::openapi::OpenApi) -> impl Iterator<Item = &mut Operation> {
    let items = api.paths.paths.values_mut();
    items.flat_map(|item| [&mut item.get, &mut item.post, &mut item.patch, &mut item.delete]).filter_map(Option::as_mut)
}

/// Adds what every operation of a role may answer, and makes problems of all its refusals.
fn complete(operation: &mut Operation, needs: Needs) {
    let mut common = vec![(
        503,
        "It cannot be done now: the disk is full, the controller is stopping, or another change of the same thing is being stored",
    )];
    let other_origin = "The request comes from a page of another origin, or the caller's role is not enough";
    match needs {
        Needs::Role(role) => {
            operation.description = Some(format!("Needs the role {role}."));
            common.extend([(401, "The credential is missing or not valid"), (403, other_origin)]);
        }
        Needs::Cookie => {
            operation.description = Some("Needs the role viewer; a session's cookie is enough.".into());
            let requirements = ["token", "session"].map(|name| SecurityRequirement::new(name, [""; 0]));
            operation.security = Some(requirements.into());
            common.extend([(401, "The credential is missing or not valid"), (403, other_origin)]);
        }
        Needs::Nothing => {
            operation.security = Some(Vec::new());
            common.push((403, "The request comes from a page of another origin"));
        }
    }
    if operation.parameters.is_some() || operation.request_body.is_some() {
        common.push((400, "The request is malformed"));
    }
    if operation.request_body.is_some() {
        common.extend([
            (413, "The body is too large"),
            (415, "The body is not application/json"),
            (422, "The body is JSON of another form"),
        ]);
    }
    let responses = &mut operation.responses.responses;
    for (status, description) in common {
        responses.entry(status.to_string()).or_insert_with(|| RefOr::T(problem(description)));
    }
    for (_, response) in responses.iter_mut().filter(|(status, _)| status.starts_with(['4', '5'])) {
        if let RefOr::T(response) = response {
            *response = problem(&response.description);
        }
    }
}

fn problem(description: &str) -> Response {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new().description(description).content("application/problem+json", content).build()
}

fn with_security(components: Components) -> Components {
    let token = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("An account's token.")).build();
    let session = ApiKeyValue::with_description(
        "pistat_<key id>",
        "The cookie of a browser that signed in, named after the controller's key; with __Host- before it over https.",
    );
    let key = ApiKeyValue::with_description(SESSION_KEY_HEADER, "The session_key of the answer to POST /api/login.");
    ComponentsBuilder::from(components)
        .security_scheme("token", SecurityScheme::Http(token))
        .security_scheme("session", SecurityScheme::ApiKey(ApiKey::Cookie(session)))
        .security_scheme("sessionKey", SecurityScheme::ApiKey(ApiKey::Header(key)))
        .build()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    #[test]
    fn the_description_names_every_role_and_every_refusal() {
        let document: Value = serde_json::from_slice(&super::super::tables().1.0).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        let paths = document["paths"].as_object().unwrap();
        assert!(paths.len() > 25);
        let run = &paths["/api/runs"]["post"];
        assert_eq!(run["description"], "Needs the role operator.");
        let answers: Vec<_> = run["responses"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(answers, ["202", "400", "401", "403", "404", "409", "413", "415", "422", "503"]);
        let refusal = &run["responses"]["409"]["content"]["application/problem+json"]["schema"]["$ref"];
        assert_eq!(refusal, "#/components/schemas/Problem");
        assert_eq!(paths["/healthz"]["get"]["security"], serde_json::json!([]));
        let methods: Vec<_> = paths["/api/pis/{pi}"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(methods, ["delete", "get", "patch"], "the tables of three roles meet in one path");
    }

    #[test]
    fn every_schema_that_is_referred_to_is_there() {
        let document: Value = serde_json::from_slice(&super::super::tables().1.0).unwrap();
        let text = document.to_string();
        let names = text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next());
        let mut count = 0;
        for name in names {
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
            count += 1;
        }
        assert!(count > 40);
    }
}
