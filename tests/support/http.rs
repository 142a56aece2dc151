//! REST as curl and the existing clients speak it.

use serde_json::Value;

use super::Server;

/// Sends requests to one server, with or without a token.
#[derive(Clone)]
pub struct Http {
    client: reqwest::Client,
    url: String,
    token: Option<String>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Header fields.
    pub headers: reqwest::header::HeaderMap,
    /// The body as text.
    pub text: String,
    /// The body as JSON; null if it is none.
    pub json: Value,
}

impl Http {
    /// Without a token.
    pub fn new(server: &Server) -> Http {
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build();
        Http { client: client.expect("a client"), url: server.url(), token: None }
    }
    /// As the superuser `admin`.
    pub async fn admin(server: &Server) -> Http {
        Http::new(server).with(server.token().await)
    }
    /// The token that it has.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }
    /// The same with this token.
    pub fn with(&self, token: &str) -> Http {
        Http { token: Some(token.to_owned()), ..self.clone() }
    }

    /// `GET path`; the path begins with `/`.
    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, None).await
    }
    /// `POST path` with a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, Some(body)).await
    }
    /// `PUT path` with a JSON body.
    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send("PUT", path, Some(body)).await
    }
    /// `PATCH path` with a JSON body.
    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.send("PATCH", path, Some(body)).await
    }
    /// `DELETE path`.
    pub async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, None).await
    }
    /// `POST path` with a form.
    pub async fn form(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        answer(self.request("POST", path).form(fields)).await
    }
    /// `POST path` with a form as `multipart/form-data`.
    pub async fn multipart(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let part = |(name, value): &(&str, &str)| {
            format!("--parts\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let body: String = fields.iter().map(part).collect();
        let request =
            self.request("POST", path).header("content-type", "multipart/form-data; boundary=parts");
        answer(request.body(body + "--parts--\r\n")).await
    }
    /// Any method, with a JSON body or none.
    pub async fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let request = self.request(method, path);
        answer(match body {
            Some(body) => request.json(body),
            None => request,
        })
        .await
    }
    /// A request to be completed and handed to [`answer`].
    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = method.parse::<reqwest::Method>().expect("a method");
        let request = self.client.request(method, format!("{}{path}", self.url));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }
}

/// Sends a request.
pub async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.expect("the server answers");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.expect("a body");
    let json = serde_json::from_str(&text).unwrap_or(Value::Null);
    Answer { status, headers, text, json }
}

impl Answer {
    /// The JSON body, after a check of the status.
    pub fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text);
        self.json
    }
    /// Status and `detail`, to compare with what the contract says.
    pub fn refusal(&self) -> (u16, Value) {
        (self.status, self.json.get("detail").cloned().unwrap_or(Value::Null))
    }
}
