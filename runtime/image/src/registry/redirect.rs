//! Where a redirect leads (RFC 9110, section 10.2.2).

use ureq::{
    Body,
    http::{Response, StatusCode, Uri, header},
};

/// The URL that an answer of `from` sends us on to. `None` is an answer that is none of these; an error
/// says what is wrong with it, without what may be secret in it.
pub(super) fn target(from: &Uri, answer: &Response<Body>) -> Result<Option<Uri>, String> {
    let leads = matches!(
        answer.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    let Some(location) = answer.headers().get(header::LOCATION).filter(|_| leads) else {
        return Ok(None);
    };
    let found = location.to_str().ok().and_then(|text| join(from, text));
    let wrong = || {
        format!(
            "its redirect (status {}) leads to no URL",
            answer.status().as_u16()
        )
    };
    found.map(Some).ok_or_else(wrong)
}

/// RFC 3986, section 5.2, for a base that is a URL of HTTP.
fn join(base: &Uri, reference: &str) -> Option<Uri> {
    let scheme = base.scheme_str()?;
    let reference = reference.split('#').next()?;
    let authority = base.authority()?;
    let (path, query) = match reference.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (reference, None),
    };
    let scheme_end = path.find(':').filter(|at| !path[..*at].contains('/'));
    if scheme_end.is_some() {
        return reference.parse().ok().filter(is_complete);
    }
    if reference.starts_with("//") {
        return format!("{scheme}:{reference}")
            .parse()
            .ok()
            .filter(is_complete);
    }
    let path = match path {
        "" => base.path().to_owned(),
        path if path.starts_with('/') => without_dots(path),
        path => {
            let folder = base
                .path()
                .rsplit_once('/')
                .map_or("", |(folder, _)| folder);
            without_dots(&format!("{folder}/{path}"))
        }
    };
    let query = match (reference, query) {
        ("", _) => base.query(),
        (_, query) => query,
    };
    let query = query.map_or_else(String::new, |query| format!("?{query}"));
    format!("{scheme}://{authority}{path}{query}").parse().ok()
}

fn is_complete(url: &Uri) -> bool {
    matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some_and(|h| !h.is_empty())
}

/// RFC 3986, section 5.2.4, for a path that begins with a slash.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for word in path.split('/').skip(1) {
        match word {
            "." => {}
            ".." => {
                kept.pop();
            }
            word => kept.push(word),
        }
    }
    if path.ends_with("/.") || path.ends_with("/..") {
        kept.push("");
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_resolved_as_the_rfc_does_it() {
        let to = |base: &str, reference: &str| {
            let found = join(&base.parse().expect("a URL"), reference);
            found.map(|url| url.to_string())
        };
        // RFC 3986, section 5.4, with a base of HTTP.
        for (reference, expected) in [
            ("http://g/h", "http://g/h"),
            ("g", "http://a/b/c/g"),
            ("./g", "http://a/b/c/g"),
            ("g/", "http://a/b/c/g/"),
            ("/g", "http://a/g"),
            ("//g/", "http://g/"),
            ("?y", "http://a/b/c/d;p?y"),
            ("g?y", "http://a/b/c/g?y"),
            ("g?y/../x", "http://a/b/c/g?y/../x"),
            ("g?y://x", "http://a/b/c/g?y://x"),
            ("#s", "http://a/b/c/d;p?q"),
            ("g#s", "http://a/b/c/g"),
            (";x", "http://a/b/c/;x"),
            ("", "http://a/b/c/d;p?q"),
            (".", "http://a/b/c/"),
            ("..", "http://a/b/"),
            ("../g", "http://a/b/g"),
            ("../../g", "http://a/g"),
            ("../../../g", "http://a/g"),
            ("/./g", "http://a/g"),
            ("/../g", "http://a/g"),
            ("g.", "http://a/b/c/g."),
            ("./g/.", "http://a/b/c/g/"),
            ("g/../h", "http://a/b/c/h"),
            ("./a:b", "http://a/b/c/a:b"),
            ("HTTPS://r.example:5000/x?y", "https://r.example:5000/x?y"),
        ] {
            let found = to("http://a/b/c/d;p?q", reference);
            assert_eq!(found.as_deref(), Some(expected), "{reference}");
        }
        assert_eq!(
            to("https://r:5000", "x").as_deref(),
            Some("https://r:5000/x")
        );
        for bad in [
            "ftp://g/", "mailto:g", "https://", "//", "/a b", "http:/g", ":",
        ] {
            assert_eq!(to("http://a/b", bad), None, "{bad}");
        }
    }
}
