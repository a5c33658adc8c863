"""How a corpus is built: pieces of work, where they run, and what is made of them."""
