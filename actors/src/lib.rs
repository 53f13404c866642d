//! The verbs of Crochet Gateway: who decides.
