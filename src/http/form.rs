//! Forms, in both of their encodings.

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use futures::stream;
use multer::Multipart;

use crate::error::{Error, Result};

/// Most fields of a form; no form of ours has more than a few.
pub(super) const MOST_FIELDS: usize = 64;

/// The fields of a form, names and texts, as its content type says it is encoded. Files count as absent.
pub(super) async fn read(headers: &HeaderMap, body: Bytes) -> Result<Vec<(String, String)>> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.trim_start().to_ascii_lowercase().starts_with("multipart/form-data") {
        let fields: Vec<_> = url::form_urlencoded::parse(&body).into_owned().take(MOST_FIELDS + 1).collect();
        return if fields.len() > MOST_FIELDS { Err(too_many()) } else { Ok(fields) };
    }
    let boundary = multer::parse_boundary(kind).map_err(bad)?;
    let mut parts = Multipart::new(stream::iter([Ok::<_, std::io::Error>(body)]), boundary);
    let mut fields = Vec::new();
    while let Some(part) = parts.next_field().await.map_err(bad)? {
        if fields.len() == MOST_FIELDS {
            return Err(too_many());
        }
        let name = part.name().map(str::to_owned);
        let is_file = part.file_name().is_some();
        let text = part.bytes().await.map_err(bad)?;
        if let Some(name) = name.filter(|_| !is_file) {
            fields.push((name, String::from_utf8_lossy(&text).into_owned()));
        }
    }
    Ok(fields)
}

fn too_many() -> Error {
    Error::bad_request(format!("Too many fields. Maximum number of fields is {MOST_FIELDS}."))
}

fn bad(_: multer::Error) -> Error {
    Error::bad_request("There was an error parsing the body: it is no multipart/form-data")
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    async fn fields(kind: &'static str, body: &'static str) -> Result<Vec<(String, String)>> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        read(&headers, Bytes::from_static(body.as_bytes())).await
    }

    #[tokio::test]
    async fn both_encodings_say_the_same() {
        let wanted =
            [("username", "a b"), ("password", "x&y=\u{e9}")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        let encoded = "username=a+b&password=x%26y%3D%C3%A9";
        assert_eq!(fields("application/x-www-form-urlencoded", encoded).await.unwrap(), wanted);
        let parts = "--B\r\nContent-Disposition: form-data; name=\"username\"\r\n\r\na b\r\n\
            --B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\nContent-Type: text/plain\r\n\r\n1\r\n\
            --B\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\nx&y=\u{e9}\r\n--B--\r\n";
        assert_eq!(fields("Multipart/Form-Data; boundary=B", parts).await.unwrap(), wanted);
    }

    #[tokio::test]
    async fn a_form_has_64_fields_at_most_in_both_encodings() {
        let read = async |kind: &'static str, field: &str, count: usize, end: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            let read = read(&headers, Bytes::from(field.repeat(count) + end)).await;
            read.map(|fields| fields.len()).map_err(|error| error.status())
        };
        let part = "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb\r\n";
        for (kind, field, end) in [
            ("application/x-www-form-urlencoded", "a=b&", ""),
            ("multipart/form-data; boundary=B", part, "--B--\r\n"),
        ] {
            assert_eq!(read(kind, field, 64, end).await, Ok(64));
            assert_eq!(read(kind, field, 65, end).await, Err(400));
        }
    }

    #[tokio::test]
    async fn what_is_no_multipart_form_is_told() {
        for (kind, body) in [
            ("multipart/form-data", "x"),
            ("multipart/form-data; boundary=B", "username=a"),
            (
                "multipart/form-data; boundary=B",
                "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\ncut",
            ),
        ] {
            assert_eq!(fields(kind, body).await.unwrap_err().status(), 400, "{kind} {body}");
        }
    }
}
