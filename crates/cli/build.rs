//! The one program that has all parts in it is made smaller for its image.

fn main() {
    println!("cargo:rerun-if-env-changed=STREAMFLEET_FOLD");
    // Generic code that was compiled to the same instructions is kept once. LLD can do that, which not every target links with.
    if std::env::var_os("STREAMFLEET_FOLD").is_some() {
        println!("cargo:rustc-link-arg-bin=streamfleet=-Wl,--icf=all");
    }
}
