//! Routes.

use farebox_core::tiers::Pattern;

fn pattern(text: &str) -> Pattern {
    text.parse().expect("well formed")
}

#[test]
fn the_rest_is_one_segment_or_more() {
    let rest = pattern("/v1/*");
    assert!(rest.matches("GET", "/v1/items"));
    assert!(rest.matches("GET", "/v1/items/"));
    assert!(rest.matches("PROPFIND", "/v1/a/b/c"));
    for path in ["/v1", "/v1/", "/v2/items", "/", "", "v1/items", "/V1/items"] {
        assert!(!rest.matches("GET", path), "{path}");
    }
    assert!(pattern("/*").matches("GET", "/a") && !pattern("/*").matches("GET", "/"));
    assert!(pattern("/").matches("GET", "/") && !pattern("/").matches("GET", "/a"));
    let deep = format!("/v1{}", "/x".repeat(40));
    assert!(rest.matches("GET", &deep));
    assert!(!pattern("/v1/{id}").matches("GET", &deep));
}

#[test]
fn one_spelling_for_each_pattern() {
    for (text, canonical) in [
        ("/v1/{id}/items", "/v1/*/items"),
        ("/v1/items/{id}", "/v1/items/{id}"),
        ("/v1/items/{id}/", "/v1/items/{id}"),
        ("/v1/{proxy+}", "/v1/*"),
        ("/v1/*/", "/v1/*"),
        ("/v1/*/*", "/v1/*/*"),
        ("/v1/{a}/{b+}", "/v1/*/*"),
        ("POST  /v1/gener%61te", "POST /v1/generate"),
        ("/a%20b", "/a%20b"),
        ("/caf%C3%A9", "/café"),
        ("/", "/"),
        ("/{id}", "/{id}"),
    ] {
        assert_eq!(pattern(text).to_string(), canonical);
        assert_eq!(pattern(canonical), pattern(text));
    }
}

#[test]
fn what_is_no_pattern() {
    for text in [
        "",
        "v1",
        "*",
        "//",
        "/a//b",
        "/a/../b",
        "/a/.",
        "/a*",
        "/*a",
        "/{a",
        "/{}",
        "/{+}",
        "/{a+}/b",
        "/a b",
        "get /a",
        "TRACE /a",
        "GET",
        "GET a",
        "/a?b",
        "/a#b",
        "/a%2Fb",
        "/a%2fb",
        "/%00",
        "/a\\b",
        "/%5C",
        "/%zz",
        "/%",
        "/%ff",
        "/%2e%2e/x",
        "/%2525",
        "/..;x/y",
        "/;x",
        "/a\"b",
    ] {
        assert!(text.parse::<Pattern>().is_err(), "{text:?}");
    }
}

#[test]
fn an_ambiguous_path_matches_nothing() {
    let all = pattern("/v1/*");
    for path in [
        "/v1//a",
        "//v1/a",
        "/v1/a//",
        "/v1/./a",
        "/v1/../a",
        "/v1/..",
        "/v1/%2e%2e/a",
        "/v1/%2E",
        "/v1/a%2fb",
        "/v1/a%2Fb",
        "/v1/a%5cb",
        "/v1/a\\b",
        "/v1/%00",
        "/v1/a\0",
        "/v1/%0a",
        "/v1/\u{7f}",
        "/v1/\u{85}",
        "/v1/%ff",
        "/v1/%c0%af",
        "/v1/%",
        "/v1/%4",
        "/v1/%zz",
        "/v1/%252e",
        "/v1/%2561dmin",
        "/v1/a?b",
        "/v1/a#b",
        "/v1/..;x/a",
        "/v1/;x/a",
    ] {
        assert!(!all.matches("GET", path), "{path:?}");
    }
    for path in [
        "/v1/%61",
        "/v1/a%20b",
        "/v1/caf%C3%A9",
        "/v1/café",
        "/v1/...",
        "/v1/.well-known",
        "/v1/a;b",
        "/v1/100%25",
    ] {
        assert!(all.matches("GET", path), "{path:?}");
    }
    for method in ["get", "", "G ET", "GET\n"] {
        assert!(!all.matches(method, "/v1/a"), "{method:?}");
    }
    assert!(pattern("/v1/admin/x").matches("GET", "/v1/%61dm%69n/x"));
    assert!(pattern("/v1/$a").matches("GET", "/v1/%24a"));
}
