"""What the grammar's alternatives do: from tokens to nodes of the tree, one file a part of the language."""
