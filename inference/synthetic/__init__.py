"""An analytic patient: all 104 structures as implicit shapes, exact on every grid."""
