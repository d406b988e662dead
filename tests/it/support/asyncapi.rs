//! `proto/asyncapi.json`, and whether a frame is as it says.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::LazyLock,
};

use boon::{Compiler, Draft, SchemaIndex, Schemas};
use serde_json::{Map, Value};

/// The document, as published.
pub(crate) static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/asyncapi.json");
    serde_json::from_slice(&fs::read(path).unwrap()).expect("it is JSON")
});

/// What frames are held against: the document, tightened.
static CONTRACT: LazyLock<Contract> = LazyLock::new(|| Contract::new(tightened(&DOCUMENT)));

/// `frame`, which is valid for the message of its type, and has no field that the document does not list.
pub(crate) fn checked(frame: Value) -> Value {
    if let Err(problem) = CONTRACT.check(&frame) {
        panic!("not as proto/asyncapi.json says: {problem}\n{frame:#}");
    }
    frame
}

/// The messages that `frame` is valid for.
pub(crate) fn messages_of(frame: &Value) -> Vec<&'static str> {
    let contract = &*CONTRACT;
    let messages = contract.messages.iter();
    messages
        .filter(|(_, schema)| contract.schemas.validate(frame, **schema).is_ok())
        .map(|(name, _)| name.as_str())
        .collect()
}

/// The members of an object.
pub(crate) fn members(object: &Value) -> &Map<String, Value> {
    object.as_object().unwrap_or_else(|| panic!("{object}"))
}

struct Contract {
    schemas: Schemas,
    /// The schema of each message, by its name.
    messages: BTreeMap<String, SchemaIndex>,
}

impl Contract {
    fn new(document: Value) -> Self {
        // Never fetched: only a name.
        const URL: &str = "http://localhost/asyncapi.json";
        let mut schemas = Schemas::new();
        let mut compiler = Compiler::new();
        compiler.set_default_draft(Draft::V7);
        compiler.enable_format_assertions();
        let messages = document["components"]["messages"].clone();
        compiler.add_resource(URL, document).unwrap();
        let mut compile = |(name, message): (&String, &Value)| {
            let schema = message["payload"]["$ref"].as_str().unwrap();
            let schema = compiler.compile(&format!("{URL}{schema}"), &mut schemas);
            let schema = schema.unwrap_or_else(|error| panic!("{name}: {error:#}"));
            (name.clone(), schema)
        };
        let messages = members(&messages).iter().map(&mut compile).collect();
        Self { schemas, messages }
    }

    fn check(&self, frame: &Value) -> Result<(), String> {
        let wire_type = frame["type"].as_str().ok_or("it has no type")?;
        let message = match frame.get("custom") {
            Some(_) => "custom",
            None => wire_type,
        };
        let schema = self.messages.get(message);
        let schema = schema.ok_or_else(|| format!("it has no message {message}"))?;
        let valid = self.schemas.validate(frame, *schema);
        valid.map_err(|error| error.to_string())
    }
}

/// The document with schemas that admit no field beside those that they list. As published they admit any, so that a
/// client that validates gets along with a newer server; but the server's own tests must know of every field.
fn tightened(document: &Value) -> Value {
    let mut tight = document.clone();
    let schemas = members(&document["components"]["schemas"]);
    let bases: BTreeSet<_> = schemas.values().flat_map(bases).collect();
    for (name, schema) in members_mut(&mut tight["components"]["schemas"]) {
        tighten(schema, schemas, bases.contains(name.as_str()));
    }
    tight
}

/// Closes `schema` to fields that neither it nor a base of it lists, and what it nests. A base is not closed itself:
/// what builds on it adds fields.
fn tighten(schema: &mut Value, schemas: &Map<String, Value>, is_base: bool) {
    let mut listed = BTreeSet::new();
    list_fields(schema, schemas, &mut listed);
    if let Some(fields) = schema.get_mut("properties") {
        for field in members_mut(fields).values_mut() {
            tighten(field, schemas, false);
        }
    }
    if let Some(items) = schema.get_mut("items") {
        tighten(items, schemas, false);
    }
    if !is_base && !listed.is_empty() {
        schema["additionalProperties"] = false.into();
        let fields = &mut schema["properties"];
        for field in listed {
            if fields.get(&field).is_none() {
                fields[field] = true.into();
            }
        }
    }
}

/// Adds to `listed` what `schema` and its bases list.
fn list_fields(schema: &Value, schemas: &Map<String, Value>, listed: &mut BTreeSet<String>) {
    if let Some(fields) = schema.get("properties") {
        listed.extend(members(fields).keys().cloned());
    }
    for base in bases(schema) {
        list_fields(&schemas[base], schemas, listed);
    }
}

/// The names of the schemas that `schema` builds on.
fn bases(schema: &Value) -> impl Iterator<Item = &str> {
    let parts = schema["allOf"].as_array().into_iter().flatten();
    parts.filter_map(|part| part["$ref"].as_str()?.strip_prefix("#/components/schemas/"))
}

fn members_mut(object: &mut Value) -> &mut Map<String, Value> {
    object.as_object_mut().expect("an object")
}
