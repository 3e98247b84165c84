"""All clips from audio to the store: in processes of this machine, or with Apache Beam."""
