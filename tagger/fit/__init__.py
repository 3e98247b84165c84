"""Your own labels in a minute: embeddings of a pretrained model, and a clip head fitted to them."""
