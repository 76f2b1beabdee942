//! `#[test]`, for the harness of `tests/support`.

use proc_macro::{TokenStream, TokenTree};

/// A test: a function without arguments that returns nothing or a `Result`.
///
/// `#[test(long)]`: it takes more than a few seconds, and `scripts/quick` leaves it out.
#[proc_macro_attribute]
pub fn test(options: TokenStream, function: TokenStream) -> TokenStream {
    let is_long = match options.to_string().as_str() {
        "" => false,
        "long" => true,
        other => panic!("`{other}`: a test is `long`, or nothing"),
    };
    let is_fn = |token: &TokenTree| matches!(token, TokenTree::Ident(word) if word.to_string() == "fn");
    let name = function.clone().into_iter().skip_while(|token| !is_fn(token)).nth(1).expect("a function");
    let entered = format!(
        "::support::harness::inventory::submit! {{
            ::support::harness::Test {{
                module: module_path!(),
                name: stringify!({name}),
                is_long: {is_long},
                run: || ::support::harness::Outcome::check({name}()),
            }}
        }}"
    );
    [function, entered.parse().expect("it is Rust")].into_iter().collect()
}
