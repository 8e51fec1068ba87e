//! The baseline: a reverse proxy of hyper's server and client, which reads nothing of what it carries.

use std::net::SocketAddr;

use anyhow::Context as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode, Uri, header};

use crate::http::{client, serve, whole};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    listen: SocketAddr,
    /// Where everything goes.
    #[arg(long)]
    to: SocketAddr,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let client = client::<Incoming>();
    let to = args.to;
    serve(args.listen, move |mut request: Request<Incoming>| {
        let client = client.clone();
        async move {
            let sent = async {
                let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
                *request.uri_mut() = format!("http://{to}{path}").parse::<Uri>().context("a path")?;
                // What ends at every hop (RFC 9110, 7.6.1).
                request.headers_mut().remove(header::CONNECTION);
                anyhow::Ok(client.request(request).await?)
            };
            match sent.await {
                Ok(response) => response.map(|body| body.boxed()),
                Err(_) => {
                    let mut response = Response::new(whole(""));
                    *response.status_mut() = StatusCode::BAD_GATEWAY;
                    response
                }
            }
        }
    })
    .await
}
