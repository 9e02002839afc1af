//! How the types whose JSON is not their Rust shape look in the description of the HTTP API.
//!
//! An identifier is a text with a pattern: what `FromStr` takes is what the pattern says, or less.

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr,
        schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, SchemaType, Type},
    },
};

use crate::{
    id::{AccountName, PiId, RunId, Tag, Target, TaskId, TokenName},
    status::Session,
    task::ArgumentValue,
    time::Timestamp,
};

fn text(pattern: Option<&str>, format: Option<SchemaFormat>, description: &str) -> RefOr<Schema> {
    let object = ObjectBuilder::new().schema_type(SchemaType::Type(Type::String)).pattern(pattern).format(format);
    RefOr::T(Schema::Object(object.description(Some(description)).build()))
}

macro_rules! texts {
    ($($name:ident, $pattern:expr, $format:expr, $description:literal;)*) => {$(
        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                text($pattern, $format, $description)
            }
        }

        impl ToSchema for $name {}
    )*};
}

texts! {
    PiId, Some("^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"), None, "A machine's stable name; the label is what people rename.";
    AccountName, Some("^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"), None, "An account's name, also its MQTT user name.";
    TaskId, Some("^[a-z0-9][a-z0-9-]{0,63}$"), None, "A task of the catalogue.";
    Tag, Some("^[a-z0-9][a-z0-9-]{0,63}$"), None, "A tag; people write it @tag.";
    TokenName, Some("^[a-z0-9][a-z0-9-]{0,63}$"), None, "The name of a join token.";
    Target, Some("^(@[a-z0-9][a-z0-9-]{0,63}|[A-Za-z0-9][A-Za-z0-9_-]{0,63})$"), None, "A pi-id, @tag, or @all for everyone.";
    RunId, None, Some(SchemaFormat::Custom("uuid".into())), "A UUIDv7, made by the controller only.";
    Timestamp, None, Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)), "RFC 3339 in UTC.";
    Session, Some("^[A-Za-z0-9]{16,64}$"), None, "A random value that an agent makes at each connection.";
}

impl PartialSchema for ArgumentValue {
    fn schema() -> RefOr<Schema> {
        // An integer is a number too, so a choice between the two would be ambiguous.
        let types = SchemaType::Array(vec![Type::Boolean, Type::Number, Type::String]);
        RefOr::T(Schema::Object(
            ObjectBuilder::new().schema_type(types).description(Some("An argument's value.")).build(),
        ))
    }
}

impl ToSchema for ArgumentValue {}
