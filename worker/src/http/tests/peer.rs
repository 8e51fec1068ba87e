//! Whose word is taken on where a request is from, and of which trace it is.

use super::*;

#[tokio::test]
async fn only_proxies_that_are_trusted_say_whose_a_request_is_and_of_which_trace() {
    #[track_caller]
    fn check(found: Reply, expected: &str) {
        assert_eq!((found.status, found.body.as_str()), (200, expected));
    }
    let seen = async |trusted: &[&str], fleet: Option<&str>| {
        let page = get(async |ConnectInfo(client): ConnectInfo<SocketAddr>, headers: HeaderMap| {
            let traced = ["traceparent", "tracestate"].map(|name| headers.contains_key(name));
            format!("{} {traced:?}", client.ip())
        });
        let trusted = trusted.iter().map(|network| network.parse().unwrap()).collect();
        let fleet = fleet.map(|secret| secret.parse().unwrap());
        let world = World::serving(Access { trusted, fleet, ..access() }, Router::new().route("/", page));
        let request = Request::get("/").header("x-forwarded-for", "198.51.100.1").header("tracestate", "a=1");
        let request = request.header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        world.send(request.body(Body::empty()).unwrap()).await
    };
    check(seen(&["10.0.0.0/8", "192.0.2.7"], None).await, "198.51.100.1 [true, true]");
    check(seen(&["10.0.0.0/8"], None).await, "192.0.2.7 [false, false]");
    check(seen(&[], None).await, "192.0.2.7 [false, false]");
    // Whoever shows the fleet's secret has judged this already.
    check(seen(&[], Some("correct-horse-battery")).await, "192.0.2.7 [true, true]");
}
