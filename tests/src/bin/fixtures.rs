//! Builds the fixtures for a machine that has no compilers, and prints the folder that they are in.

fn main() -> anyhow::Result<()> {
    println!("{}", lifetrace_tests::fixture::all()?.display());
    Ok(())
}
