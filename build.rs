//! Compiles `proto/` with protox, so that no `protoc` is needed.

use std::{error::Error, path::PathBuf};

const FILES: [&str; 3] = [
    "emitter/v1/event_emitter.proto",
    "emitter/v1/emitter_operator.proto",
    "emitter/v1/event_subscriber.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto/emitter");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let descriptors = protox::compile(FILES, ["proto"])?;

    // Reflection serves this, comments left out.
    let mut served = descriptors.clone();
    for file in &mut served.file {
        file.source_code_info = None;
    }
    std::fs::write(
        out.join("emitter.v1.descriptors.bin"),
        protox::prost::Message::encode_to_vec(&served),
    )?;

    let stored = protox::compile(["emitter/stored/v1/stored.proto"], ["proto"])?;
    tonic_prost_build::configure()
        // Records are read without copying their payloads.
        .bytes(".")
        .compile_fds(stored)?;
    tonic_prost_build::configure()
        // Sorted maps: equal events have equal bytes, which the content hash relies on.
        .btree_map(".")
        .compile_fds(descriptors)?;

    // Readers are sent bytes that were encoded once, however many they are, so the server side of `Subscribe`
    // has a codec of its own.
    let subscribe = tonic_build::manual::Method::builder()
        .name("subscribe")
        .route_name("Subscribe")
        .input_type("crate::proto::v1::SubscribeRequest")
        .output_type("bytes::Bytes")
        .codec_path("crate::egress::grpc::EncodedCodec")
        .server_streaming()
        .build();
    let service = tonic_build::manual::Service::builder()
        .name("EventSubscriber")
        .package("emitter.v1")
        .method(subscribe)
        .build();
    let subscriber_dir = out.join("subscriber");
    std::fs::create_dir_all(&subscriber_dir)?;
    tonic_build::manual::Builder::new()
        .build_client(false)
        .out_dir(subscriber_dir)
        .compile(&[service]);
    Ok(())
}
