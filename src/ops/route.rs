//! How REST reaches an operation: a method and a path, how the request becomes parameters, how the result becomes a
//! body. Only shapes; what they mean is the operation's.

use axum::http::Method;
use serde_json::Value;

/// How a REST request's body becomes parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// There is none.
    None,
    /// The JSON object is the parameters.
    Params,
    /// The JSON value is the parameter of this name.
    Under(&'static str),
    /// The JSON string is the parameter of this name. So is the body as it stands if its content type is another than
    /// JSON, or if it is a bare word that is no JSON.
    Text(&'static str),
    /// A form (`application/x-www-form-urlencoded`); its fields are the parameters.
    Form,
}

/// How a result becomes a REST body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The result itself.
    Whole,
    /// The result itself, and 200 `null` instead of 404 (contract 4.6).
    OrNull,
    /// One member of the result, e.g. the bare number of `{"count": 3}`.
    Member(&'static str),
    /// `null`, whatever the result says.
    Null,
    /// Nothing: 204.
    Empty,
}

/// A REST method and path that an operation is reached by.
///
/// `{name}` in the path and `name=` in the query become the parameters of that name, read as what the operation's
/// schema says they are; the headers `If-Match` and `Idempotency-Key` are `if_revision` and `idempotency_key`. The path wins over the body and the body over the query; names that are no parameters are
/// passed over, as KernelCI does.
#[derive(Clone, Debug)]
pub struct Route {
    /// GET, POST, …
    pub method: Method,
    /// Without the version prefix, e.g. `/node/{id}`.
    pub path: &'static str,
    /// What the body is.
    pub body: Body,
    /// If set, only these names of the query are parameters; all others together are the parameter `filter`, as the
    /// text of a query string (`kind=job&state=done`).
    pub filter_beside: Option<&'static [&'static str]>,
    /// What the body and the query call a parameter that has another name, e.g. `("nodes", "ids")`.
    pub renamed: Vec<(&'static str, &'static str)>,
    /// Parameters of any JSON that this route takes as text only.
    pub texts: Vec<&'static str>,
    /// Parameters that this route always has.
    pub fixed: Vec<(&'static str, Value)>,
    /// Parameters that this route has where the request says nothing, or leaves them blank.
    pub defaults: Vec<(&'static str, Value)>,
    /// What the body of the answer is.
    pub answer: Answer,
    /// The status of success.
    pub status: u16,
    /// The body may be as large as that of an operation that takes much, though elsewhere it is none.
    pub takes_much: bool,
}

/// `GET path`.
pub fn get(path: &'static str) -> Route {
    Route::new(Method::GET, path, Body::None)
}

/// `POST path`; the JSON body is the parameters.
pub fn post(path: &'static str) -> Route {
    Route::new(Method::POST, path, Body::Params)
}

/// `PUT path`; the JSON body is the parameters.
pub fn put(path: &'static str) -> Route {
    Route::new(Method::PUT, path, Body::Params)
}

/// `PATCH path`; the JSON body is the parameters.
pub fn patch(path: &'static str) -> Route {
    Route::new(Method::PATCH, path, Body::Params)
}

/// `DELETE path`.
pub fn delete(path: &'static str) -> Route {
    Route::new(Method::DELETE, path, Body::None)
}

impl Route {
    fn new(method: Method, path: &'static str, body: Body) -> Route {
        Route {
            method,
            path,
            body,
            filter_beside: None,
            renamed: Vec::new(),
            texts: Vec::new(),
            fixed: Vec::new(),
            defaults: Vec::new(),
            answer: Answer::Whole,
            status: 200,
            takes_much: false,
        }
    }

    /// The JSON body is the parameter of this name.
    pub fn under(self, name: &'static str) -> Route {
        Route { body: Body::Under(name), ..self }
    }
    /// The body is the text of the parameter of this name.
    pub fn raw(self, name: &'static str) -> Route {
        Route { body: Body::Text(name), ..self.text(name) }
    }
    /// The body may bring many things at once.
    pub fn takes_much(self) -> Route {
        Route { takes_much: true, ..self }
    }
    /// The body is a form.
    pub fn form(self) -> Route {
        Route { body: Body::Form, ..self }
    }
    /// There is no body.
    pub fn bare(self) -> Route {
        Route { body: Body::None, ..self }
    }
    /// Everything in the query but `own` is the filter.
    pub fn filtered(self, own: &'static [&'static str]) -> Route {
        Route { filter_beside: Some(own), ..self }
    }
    /// The body and the query call the parameter `name` by another `alias`.
    pub fn renamed(mut self, alias: &'static str, name: &'static str) -> Route {
        self.renamed.push((alias, name));
        self
    }
    /// The parameter must be text here.
    pub fn text(mut self, name: &'static str) -> Route {
        self.texts.push(name);
        self
    }
    /// The parameter that the body or the query means by `name`.
    pub fn param<'n>(&self, name: &'n str) -> &'n str {
        self.renamed.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, param)| *param)
    }
    /// What the body and the query call the parameter `name`.
    pub fn alias<'n>(&self, name: &'n str) -> &'n str {
        self.renamed.iter().find(|(_, param)| *param == name).map_or(name, |(alias, _)| *alias)
    }
    /// Sets a parameter that this route always has.
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Route {
        self.fixed.push((name, value.into()));
        self
    }
    /// Sets a parameter that this route has where the request says nothing.
    pub fn default(mut self, name: &'static str, value: impl Into<Value>) -> Route {
        self.defaults.push((name, value.into()));
        self
    }
    /// 200 `null` where the operation says 404.
    pub fn or_null(self) -> Route {
        Route { answer: Answer::OrNull, ..self }
    }
    /// Answers one member of the result.
    pub fn member(self, name: &'static str) -> Route {
        Route { answer: Answer::Member(name), ..self }
    }
    /// Answers `null`.
    pub fn null(self) -> Route {
        Route { answer: Answer::Null, ..self }
    }
    /// Answers 204 without a body.
    pub fn empty(self) -> Route {
        Route { answer: Answer::Empty, status: 204, ..self }
    }
    /// The status of success, if it is not 200.
    pub fn status(self, status: u16) -> Route {
        Route { status, ..self }
    }
}
