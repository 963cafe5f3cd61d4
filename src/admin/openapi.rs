//! The OpenAPI document, made of the table of operations and of the types that they take and give.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::Operation;

/// Parameters within a path: `{name}`.
fn of_path(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

/// A name for an operation: its method and what its path is about.
fn name(operation: &Operation) -> String {
    let path = operation.path.trim_start_matches("/api/admin/");
    let words = path.split(['/', '{', '}']).filter(|word| !word.is_empty());
    let words = std::iter::once(operation.method.as_str()).chain(words);
    words
        .map(str::to_ascii_lowercase)
        .collect::<Vec<_>>()
        .join("_")
}

/// The document about `operations`.
pub fn document(operations: &[Operation]) -> Value {
    let mut generator = SchemaSettings::openapi3().into_generator();
    let mut paths: Map<String, Value> = Map::new();
    for operation in operations {
        let mut parameters: Vec<Value> = of_path(operation.path)
            .map(|name| {
                json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})
            })
            .collect();
        if let Some(query) = operation.query {
            let schema = query(&mut generator).to_value();
            let required = schema["required"].as_array().cloned().unwrap_or_default();
            let properties = schema["properties"]
                .as_object()
                .cloned()
                .unwrap_or_default();
            for (name, mut property) in properties {
                let about = property
                    .as_object_mut()
                    .and_then(|property| property.remove("description"));
                parameters.push(json!({
                    "name": name,
                    "in": "query",
                    "required": required.contains(&json!(name)),
                    "description": about.unwrap_or_default(),
                    "schema": property,
                }));
            }
        }
        let mut ok = json!({"description": "Done"});
        if let Some(answer) = operation.answer {
            let schema = answer(&mut generator).to_value();
            ok["content"] = json!({operation.media: {"schema": schema}});
        }
        let refused = json!({"$ref": "#/components/responses/Refused"});
        let mut described = json!({
            "operationId": name(operation),
            "summary": operation.summary,
            "parameters": parameters,
            "responses": {"200": ok, "default": refused},
        });
        if let Some(body) = operation.body {
            let schema = body(&mut generator).to_value();
            described["requestBody"] = json!({
                "required": true,
                "content": {"application/json": {"schema": schema}},
            });
        }
        let methods = paths
            .entry(operation.path)
            .or_insert_with(|| Value::Object(Map::new()));
        methods[operation.method.as_str().to_ascii_lowercase()] = described;
    }
    let schemas = generator.take_definitions(true);
    json!({
        "openapi": "3.0.3",
        "info": {
            "title": "Millstream, the operators' API of a broker node",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "responses": {"Refused": {
                "description": "Refused, with what is allowed",
                "content": {"application/json": {"schema": {
                    "type": "object",
                    "required": ["error"],
                    "properties": {"error": {
                        "type": "object",
                        "required": ["message"],
                        "properties": {
                            "message": {"type": "string"},
                            "field": {"type": "string"},
                            "allowed": {"type": "string"},
                        },
                    }},
                }}},
            }},
            "schemas": schemas,
        },
    })
}
